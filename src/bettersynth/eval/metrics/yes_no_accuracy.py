"""Share of yes-or-no questions answered rightly; F1, precision and recall of "yes" stand beside it."""

from __future__ import annotations

DIRECTION = "higher"
RANGE = (0.0, 1.0)
SOURCE = "Li et al. 2023, POPE, arXiv:2305.10355, section 5.1"


def score(prediction: str, reference: str) -> float:
    """1 when both say yes or both say no.

    >>> score("yes", "yes"), score("yes", "no")
    (1.0, 0.0)
    """
    return float(prediction == reference)
