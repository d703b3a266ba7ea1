"""Free answers to questions with a number or a short text as result, as MMMU's public scorer reads them.

Source: the open-response parser of the MMMU repository. Its quirks are kept, because scores must stay comparable: a
right text need only stand somewhere in the part of the answer that follows "is", "so", "answer" and the like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

DIRECTION = "higher"
RANGE = (0.0, 1.0)
SOURCE = "Yue et al. 2024, MMMU, arXiv:2311.16502, and its public scorer"

_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""Numbers with thousands commas, in scientific notation, and plain ones."""
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_MARKS = (":", ",", ".", "!", "?", ";", "'")


def _normal(text: str) -> list[str | float]:
    """A number rounded to two places, or lower-case text; a single letter gets a space on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _key_parts(text: str) -> list[str]:
    """The shortest tail behind an indicator word, per sentence; the whole text when there is none."""
    text = text.strip().strip(".").lower()
    sentences = _SENTENCES.split(text)
    found = []
    for number, sentence in enumerate(sentences):
        shortest = ""
        for indicator in (*_INDICATORS, "=") if number == len(sentences) - 1 else _INDICATORS:
            tail = sentence.split(indicator)[-1].strip()
            if indicator in sentence and (not shortest or len(tail) < len(shortest)):
                shortest = tail
        if shortest and shortest not in _MARKS:
            found.append(shortest)
    return found or [text]


def read_open(text: str) -> list[str | float]:
    """Texts and numbers that an answer may mean, in order, without repetition.

    >>> read_open("The answer is 1,200 m.")
    ['1,200 m', 1200.0, 200.0]
    """
    parts = _key_parts(text)
    numbers = [number for part in parts for pattern in _NUMBERS for number in pattern.findall(part)]
    return list(dict.fromkeys(value for part in (*parts, *numbers) for value in _normal(part)))


def matches(found: Sequence[str | float], answers: Sequence[str]) -> bool:
    """Whether one of the readings holds one of the right answers: equal as a number, contained as a text."""
    wanted = [value for answer in answers for value in _normal(answer)]
    for value in found:
        if isinstance(value, str):
            if any(isinstance(right, str) and right in value for right in wanted):
                return True
        elif value in wanted:
            return True
    return False


def score(prediction: str, reference: Sequence[str]) -> float:
    """1 when the answer holds a right one.

    >>> score("It is about 3.14159", ["3.14"]), score("so x = 5", ["6"])
    (1.0, 0.0)
    """
    return float(matches(read_open(prediction), reference))
