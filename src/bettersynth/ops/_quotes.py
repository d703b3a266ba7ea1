"""Words that a caption claims to read in its picture."""

from __future__ import annotations

import re
from math import exp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bettersynth.infer.protocols import TextNll

QUOTED_WORDS = r"\b[A-Z][A-Z0-9]+\b"
"""Two or more capitals or digits: STOP, B52."""


def check_pattern(pattern: str) -> None:
    """Raise ValueError unless the pattern is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"word_pattern is not a regular expression: {error}") from error


def quoted_likelihood(text: str, nll: TextNll, pattern: str) -> float | None:
    """Mean over the quoted words of the geometric mean probability of their tokens, 0 to 1, to five decimals.

    None when the text quotes nothing, or only words beyond the length the captioner could judge.
    """
    words = []
    for match in re.finditer(pattern, text):
        inside = [
            value
            for value, (start, stop) in zip(nll.tokens, nll.spans, strict=True)
            if start < stop and start >= match.start() and stop <= match.end()
        ]
        if inside:
            words.append(exp(-sum(inside) / len(inside)))
    return round(sum(words) / len(words), 5) if words else None
