"""Share of questions whose answer equals the right one, both in lower case."""

from __future__ import annotations

DIRECTION = "higher"
RANGE = (0.0, 1.0)
SOURCE = "Hudson & Manning 2019, GQA, arXiv:1902.09506, section 4.4 (accuracy)"


def score(prediction: str, reference: str) -> float:
    """1 when the two are the same.

    >>> score("yes", "yes"), score("yes it is", "yes")
    (1.0, 0.0)
    """
    return float(prediction == reference)
