"""What is wrong with a wrong answer, told from its words. Every wrong answer has one name: the first that fits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from bettersynth.eval.question_types import answer_kind, words

RIGHT = "right"
SPELLING_RATIO = 0.75
"""Similarity from which a wrong word counts as a misspelt right one (difflib's ratio)."""

FREE_ERRORS = (
    "empty answer",
    "partly right",
    "right answer among other words",
    "part of the right answer",
    "misspelt",
    "wrong number",
    "other kind of answer",
    "repeats the question",
    "another answer",
)
OPTION_ERRORS = (
    "empty answer",
    "no option named",
    "same letter whatever the order",
    "right in some orders only",
    "another option",
)


def free_error(answer: str, expected: str, score: float, question: str = "") -> str:
    """One of :data:`FREE_ERRORS`, or :data:`RIGHT`.

    Args:
        answer: as the scorer reads it.
        expected: the best known answer.
        score: 0-1; anything between is ``partly right``.
        question: what was asked, to tell an echo.

    >>> free_error("stpo", "stop", 0.0), free_error("the stop sign", "stop", 0.0), free_error("go", "7", 0.0)
    ('misspelt', 'right answer among other words', 'other kind of answer')
    """
    if score >= 1.0:
        return RIGHT
    given, wanted = words(answer), words(expected)
    if not given:
        return "empty answer"
    if score > 0.0:
        return "partly right"
    if wanted and _holds(given, wanted):
        return "right answer among other words"
    if _holds(wanted, given):
        return "part of the right answer"
    kinds = answer_kind(answer), answer_kind(expected)
    if kinds == ("number", "number"):
        return "wrong number"
    likeness = difflib.SequenceMatcher(None, " ".join(given), " ".join(wanted), autojunk=False).ratio()
    if likeness >= SPELLING_RATIO:
        return "misspelt"
    plain = ("one word", "several words", "unknown")
    if kinds[0] != kinds[1] and not (kinds[0] in plain and kinds[1] in plain):
        return "other kind of answer"
    if question and _holds(words(question), given):
        return "repeats the question"
    return "another answer"


def _holds(longer: Sequence[str], shorter: Sequence[str]) -> bool:
    size = len(shorter)
    return any(list(longer[start : start + size]) == list(shorter) for start in range(len(longer) - size + 1))


def option_error(letters: Sequence[str], answers: Sequence[str], given: Sequence[str]) -> str:
    """One of :data:`OPTION_ERRORS`, or :data:`RIGHT`, for a question asked once per rotation of its options.

    Args:
        letters: the letter read from each answer, empty where none can be told.
        answers: the right letter of each rotation.
        given: the answers as written.

    >>> option_error(["A", "A"], ["A", "B"], ["A.", "A."]), option_error(["", "B"], ["A", "B"], ["cow", "B"])
    ('same letter whatever the order', 'no option named')
    """
    if list(letters) == list(answers):
        return RIGHT
    if not any(text.strip() for text in given):
        return "empty answer"
    if not all(letters):
        return "no option named"
    if len(letters) > 1 and len(set(letters)) == 1:
        return "same letter whatever the order"
    if any(letter == answer for letter, answer in zip(letters, answers, strict=True)):
        return "right in some orders only"
    return "another option"
