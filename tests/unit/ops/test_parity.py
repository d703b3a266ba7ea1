"""Equal to Data-Juicer 1.6.1, operator by operator, on texts that hit its corners (its outputs are stored beside)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bettersynth.media.hash import METHODS
from bettersynth.ops._catalog import operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops._minhash import best_bands

GOLD: dict[str, Any] = json.loads((Path(__file__).parent / "data_juicer_1_6_1.json").read_text(encoding="utf-8"))
PER_TEXT = [name for name in GOLD["operators"] if name.endswith(("_mapper", "_filter"))]
# Where we differ on purpose: text -> operator.
OURS = {"<image>\n a caption with <i>html</i> <|__dj__eoc|>": "clean_html_mapper"}


@pytest.mark.parametrize("name", PER_TEXT)
def test_texts(name: str, batch: Any) -> None:
    operator: Any = operator_class(name)()
    rows = batch(GOLD["texts"], images=[[]] * len(GOLD["texts"]))
    if name.endswith("_mapper"):
        ours = operator.apply(rows, OpContext()).column("text").to_pylist()
    else:
        ours = operator.score(rows, OpContext())[operator.stat].to_pylist()
    for text, got, expected in zip(GOLD["texts"], ours, GOLD["operators"][name], strict=True):
        if OURS.get(text) != name:
            assert got == expected, text


def test_the_image_token_survives_clean_html() -> None:
    clean = operator_class("clean_html_mapper")()
    text, expected = "<image>\n a <i>b</i><br>c &amp; d <|__dj__eoc|>", "<image>\n a bc & d <|__dj__eoc|>"
    assert clean.rewrite(text) == expected  # type: ignore[attr-defined]
    spaced = operator_class("clean_html_mapper")(break_as=" ")  # type: ignore[call-arg]
    assert spaced.rewrite(text) == expected.replace("bc", "b c")  # type: ignore[attr-defined]


def test_minhash_keeps_the_same_rows(batch: Any) -> None:
    operator: Any = operator_class("document_minhash_deduplicator")()
    partial = operator.partial(batch(GOLD["texts"]), OpContext())
    kept = np.flatnonzero(operator.reduce(pa.table(partial), OpContext()).copies)
    assert kept.tolist() == GOLD["operators"]["document_minhash_deduplicator"]


def test_runs_of_spaces_make_no_empty_tokens() -> None:
    operator: Any = operator_class("document_minhash_deduplicator")()
    assert operator.windows("  a b  c d e") == {b"a b c d e"}


def test_document_hashes() -> None:
    operator: Any = operator_class("document_deduplicator")(lowercase=True, ignore_non_character=True)  # type: ignore[call-arg]
    assert [operator.digest(text).hex() for text in GOLD["texts"]] == GOLD["operators"]["document_deduplicator"]


def test_random_selector_draws_the_same_rows() -> None:
    operator: Any = operator_class("random_selector")(select_num=10)  # type: ignore[call-arg]
    copies = operator.reduce(pa.table({"row": np.zeros(50)}), OpContext()).copies
    assert np.flatnonzero(copies).tolist() == GOLD["operators"]["random_selector"]


@pytest.mark.parametrize(
    ("threshold", "count", "bands"), [(0.7, 256, (25, 10)), (0.5, 128, (25, 5)), (0.9, 128, (5, 25))]
)
def test_bands(threshold: float, count: int, bands: tuple[int, int]) -> None:
    assert best_bands(threshold, count) == bands


@pytest.mark.parametrize("method", sorted(METHODS))
def test_image_hashes(method: str) -> None:
    for number, expected in enumerate(GOLD["image_hashes"][method]):
        small = np.random.default_rng(number).integers(0, 256, (5 + number, 7, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((120 + 10 * number, 90), Image.Resampling.BICUBIC)
        assert METHODS[method](image) == expected
