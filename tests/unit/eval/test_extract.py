from __future__ import annotations

import pytest

from bettersynth.eval.extract import exact_letter, infer_letter

OPTIONS = {"A": "red car", "B": "car", "C": "None"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("A.", "A"),
        ("(B)", "B"),
        ("The answer is [C]!", "C"),
        ("A or B", ""),
        ("a", ""),
        ("It is a CAR", "B"),
        ("a red car", ""),
        ("none of these", "C"),
        ("", ""),
        ("D", ""),
        ("A: red car", "A"),
    ],
)
def test_letter_of_a_free_answer(answer, letter):
    assert infer_letter(answer, OPTIONS) == letter


def test_the_kit_takes_the_answer_as_it_is():
    assert exact_letter("B.") != "B"
