from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.core.errors import DataError
from bettersynth.eval.metrics._m4c_words import contractions
from bettersynth.eval.metrics.vqa_accuracy import agreement, normalise, score


def test_the_contraction_table_has_the_reachable_entries():
    table = contractions()
    assert len(table) == 112
    assert table["dont"] == "don't" and table["couldntve" if "couldntve" in table else "couldnt've"] == "couldn't've"
    assert table["couldn'tve"] == "couldn't've" and table["somebody'd"] == "somebodyd"
    assert not {"im", "ive", "id've", "shes", "its", "lets", "ill"} & set(table)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("The Dog.", "dog"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("well-known", "well known"),
        ("well- known", "well known"),
        ("john's", "john 's"),
        ("dont", "don't"),
        ("a.b", "ab"),
        ("." * 40 + "x", "." * 8 + "x"),
        ("line\nfeed\ttab", "line feed tab"),
    ],
)
def test_normalisation_keeps_the_originals_quirks(raw, normal):
    assert normalise(raw) == normal


@given(st.integers(0, 12), st.integers(1, 12))
def test_closed_form_equals_leaving_one_out(matches, annotators):
    matches = min(matches, annotators)
    given_answers = [True] * matches + [False] * (annotators - matches)
    left_out = [
        min(1, sum(given_answers[:i] + given_answers[i + 1 :]) / 3) if matches else 0 for i in range(annotators)
    ]
    assert agreement(matches, annotators) == pytest.approx(sum(left_out) / annotators)


def test_no_reference_is_an_error():
    with pytest.raises(DataError, match="no reference"):
        score("x", [])
