"""Kinds of questions, of answers, and of mistakes."""

from __future__ import annotations

import pytest

from bettersynth.eval.error_types import FREE_ERRORS, OPTION_ERRORS, RIGHT, free_error, option_error
from bettersynth.eval.question_types import (
    ANSWER_KINDS,
    ANSWER_LENGTHS,
    QUESTION_TYPES,
    answer_kind,
    answer_length,
    question_type,
)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is the color of the kite?", "what colour"),
        ("which colour is it", "what colour"),
        ("What colors are there?", "what colour"),
        ("What does the sign say?", "what is written"),
        ("What's written on it?", "what is written"),
        ("What brand is this?", "what brand"),
        ("what is the number of the player", "what number"),
        ("What is on the table?", "what"),
        ("How many cats?", "how many"),
        ("How is it made?", "how"),
        ("On which side is it?", "which"),
        ("Are there dogs?", "yes or no"),
        ("It is night.\nIs it on?", "yes or no"),
        ("Whose car is it?", "who"),
        ("name this", "another form"),
        ("", "another form"),
        ("这是什么？", "another form"),
    ],
)
def test_questions_by_their_words(question: str, kind: str):
    assert question_type(question) == kind and kind in QUESTION_TYPES


@pytest.mark.parametrize(
    ("answer", "kind", "length"),
    [
        ("no", "yes or no", "1 word"),
        ("$3.50", "number", "1 word"),
        ("Seven", "number", "1 word"),
        ("stop", "one word", "1 word"),
        ("coca cola", "several words", "2 words"),
        ("to the left of it", "several words", "4 words or more"),
        ("", "unknown", "unknown"),
        ("?", "one word", "1 word"),
    ],
)
def test_answers_by_their_words(answer: str, kind: str, length: str):
    assert (answer_kind(answer), answer_length(answer)) == (kind, length)
    assert kind in ANSWER_KINDS
    assert length in ANSWER_LENGTHS


@pytest.mark.parametrize(
    ("answer", "expected", "score", "error"),
    [
        ("stop", "stop", 1.0, RIGHT),
        ("  ", "stop", 0.0, "empty answer"),
        ("stop", "stop", 0.6, "partly right"),
        ("a stop sign", "stop", 0.0, "right answer among other words"),
        ("cola", "coca cola", 0.0, "part of the right answer"),
        ("stopp", "stop", 0.0, "misspelt"),
        ("12", "13", 0.0, "wrong number"),
        ("12", "stop", 0.0, "other kind of answer"),
        ("yes", "stop", 0.0, "other kind of answer"),
        ("sign", "stop", 0.0, "repeats the question"),
        ("go", "stop", 0.0, "another answer"),
        ("red car", "stop", 0.0, "another answer"),
    ],
)
def test_every_wrong_answer_has_one_name(answer: str, expected: str, score: float, error: str):
    assert free_error(answer, expected, score, "What does the sign say?") == error
    assert error in (RIGHT, *FREE_ERRORS)


@pytest.mark.parametrize(
    ("letters", "answers", "given", "error"),
    [
        (["A", "C"], ["A", "C"], ["A", "C"], RIGHT),
        (["", ""], ["A", "C"], ["", " "], "empty answer"),
        (["A", ""], ["A", "C"], ["A", "cow"], "no option named"),
        (["B", "B"], ["A", "B"], ["B", "B"], "same letter whatever the order"),
        (["A", "B"], ["A", "C"], ["A", "B"], "right in some orders only"),
        (["B", "A"], ["A", "C"], ["B", "A"], "another option"),
        (["B"], ["A"], ["B"], "another option"),
    ],
)
def test_mistakes_with_options(letters: list[str], answers: list[str], given: list[str], error: str):
    assert option_error(letters, answers, given) == error
    assert error in (RIGHT, *OPTION_ERRORS)
