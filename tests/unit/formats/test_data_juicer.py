"""The Data-Juicer view: tokens, chunks, captions, field checks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.formats.data_juicer import Tokens, field_problem, nested

T = Tokens()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\nold words <|__dj__eoc|>", "<image>\nNEW <|__dj__eoc|>"),
        ("<__dj__image> old <|__dj__eoc|>", "<__dj__image> NEW <|__dj__eoc|>"),
        ("plain", "NEW"),
        ("<image>", "<image>NEW"),
        ("", "NEW"),
        ("<image>a<|__dj__eoc|><image>b<|__dj__eoc|>", None),
        ("words <image>", None),
    ],
)
def test_with_caption_keeps_the_layout(text: str, expected: str | None) -> None:
    assert T.with_caption(text, "NEW") == expected


@given(
    st.text(alphabet="ab .\n", min_size=1).map(str.strip).filter(bool), st.sampled_from(["<image>", "<__dj__image>"])
)
def test_a_caption_put_in_can_be_read_back(caption: str, token: str) -> None:
    text = f"{token}\nold <|__dj__eoc|>"
    changed = T.with_caption(text, caption)
    assert changed is not None and T.strip(changed) == caption
    assert T.num_images(changed) == 1 and changed.endswith(" <|__dj__eoc|>")


def test_chunks_hand_out_pictures_in_order() -> None:
    text = "<image> a <|__dj__eoc|> no picture <|__dj__eoc|><__dj__image><image>b"
    assert [(o, n) for _, o, n in T.chunks(text)] == [(0, 1), (1, 0), (1, 2)]


def test_strip_deletes_tokens_and_keeps_inner_spaces() -> None:
    text = " <image>\na  <|__dj__eoc|> b <__dj__video>"
    assert T.strip(text) == "a   b"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"images": []}, "missing or null"),
        ({"text": None}, "missing or null"),
        ({"text": 3}, "must be a string, got int"),
        ({"text": "a", "images": "x.jpg"}, "list of paths, got str"),
        ({"text": "a", "images": ["x", 1]}, "must hold strings, got int"),
        ({"text": "a", "id": [1]}, "whole number, got list"),
    ],
)
def test_wrong_field_types_are_named(record: dict[str, Any], words: str) -> None:
    problem = field_problem(record, text_key="text", image_key="images")
    assert problem is not None and words in problem


def test_good_records_and_nested_keys() -> None:
    assert field_problem({"text": "", "images": None, "id": 3}, text_key="text", image_key="images") is None
    assert field_problem({"m": {"c": "x"}}, text_key="m.c", image_key="images") is None
    assert nested({"m.c": 1, "m": {"c": 2}}, "m.c") == 1
