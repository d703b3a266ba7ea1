"""Share of multiple-choice questions whose chosen letter is the right one."""

from __future__ import annotations

DIRECTION = "higher"
RANGE = (0.0, 1.0)
SOURCE = "Liu et al. 2023, MMBench, arXiv:2307.06281, section 4 (vanilla and circular evaluation)"


def score(prediction: str, reference: str) -> float:
    """1 when the letter is the reference's.

    >>> score("B", "B"), score("", "B")
    (1.0, 0.0)
    """
    return float(prediction == reference)
