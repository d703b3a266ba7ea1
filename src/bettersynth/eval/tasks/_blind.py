"""What can be reached without looking at a picture, for benchmarks with one right answer per question."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

METHOD = (
    "the better of two blind answers: the most frequent answer of the split, and per question type the most frequent "
    "answer of the other questions"
)


def blind_accuracy(answers: Sequence[str], types: Sequence[str]) -> float:
    """Accuracy in 0-1 of the better of two blind guesses, see :data:`METHOD`.

    Args:
        answers, types: right answer and type of each question.

    >>> blind_accuracy(["yes", "yes", "no", "red"], ["is", "is", "is", "what"])
    0.5
    """
    total = Counter(answers)
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for answer, kind in zip(answers, types, strict=True):
        groups[kind][answer] += 1
    constant = _best(total)
    by_type = 0
    for answer, kind in zip(answers, types, strict=True):
        others = groups[kind] - Counter([answer])
        by_type += (_best(others) if others else constant) == answer
    return max(total[constant], by_type) / len(answers)


def _best(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
