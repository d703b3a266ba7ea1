"""Equal to Data-Juicer 1.6.1's operator code on pictures and fields (answers by tools/record_data_juicer_images.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from bettersynth.core.errors import DataError
from bettersynth.media.hash import METHODS
from bettersynth.ops._catalog import operator_class
from bettersynth.ops._context import OpContext

HERE = Path(__file__).parent
GOLD: dict[str, Any] = json.loads((HERE / "data_juicer_images.json").read_text(encoding="utf-8"))
_SPEC = importlib.util.spec_from_file_location("tricky_pictures", HERE / "tricky_pictures.py")
assert _SPEC is not None and _SPEC.loader is not None
tricky = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tricky)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tricky")
    tricky.draw(place)
    return place


def build(name: str, params: dict[str, Any]) -> Any:
    made = operator_class(name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in params.items()})
    made.check()
    return made


@pytest.mark.parametrize("number", range(len(GOLD["filters"])))
def test_filters(number: int, folder: Path, batch: Any) -> None:
    name, params, answers = GOLD["filters"][number]
    made = build(name, params)
    for images, expected in zip(tricky.ROWS, answers, strict=True):
        rows, ctx = batch([""], images=[images]), OpContext(image_roots=[folder])
        if expected == "error":
            with pytest.raises(DataError):
                made.score(rows, ctx)
            continue
        stats = made.score(rows, ctx)
        assert {key: column.to_pylist()[0] for key, column in stats.items()} == expected["stats"], images
        assert made.keep(stats).tolist() == [expected["keep"]], images
        assert not ctx._images, "size, shape and aspect decode nothing"


def test_one_bad_picture_costs_its_own_row_only(folder: Path, batch: Any) -> None:
    answers = GOLD["filters"][0][2]
    bad = [images for images, answer in zip(tricky.ROWS, answers, strict=True) if answer == "error"]
    assert [row[-1] for row in bad] == [
        *(n for n in tricky.WRITERS if n in tricky.DAMAGED),
        "missing.jpg",
        "missing.jpg",
    ]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_hashes(method: str, folder: Path, batch: Any) -> None:
    made = build("image_deduplicator", {"method": method})
    for images, expected in zip(tricky.ROWS, GOLD["hashes"][method], strict=True):
        rows, ctx = batch([""], images=[images]), OpContext(image_roots=[folder])
        if expected == "error":
            with pytest.raises(DataError):
                made.partial(rows, ctx)
        else:
            assert made.partial(rows, ctx)["image"].to_pylist() == [expected], images


@pytest.mark.parametrize(("kind", "consider_text"), [("plain", False), ("with_text", True)])
def test_the_same_rows_survive_deduplication(kind: str, consider_text: bool, folder: Path, batch: Any) -> None:
    good = [number for number, value in enumerate(GOLD["hashes"]["phash"]) if value != "error"]
    rows = batch([f"t{n % 2}" for n in good], images=[tricky.ROWS[n] for n in good])
    made = build("image_deduplicator", {"consider_text": consider_text})
    copies = made.reduce(pa.table(made.partial(rows, OpContext(image_roots=[folder]))), OpContext()).copies
    assert [good[place] for place in np.flatnonzero(copies)] == GOLD["kept"][kind]


@pytest.mark.parametrize("number", range(len(GOLD["selectors"])))
def test_selectors(number: int, batch: Any) -> None:
    name, params, expected = GOLD["selectors"][number]
    records = [orjson.dumps(record).decode() for record in GOLD["records"]]
    rows = batch([""] * len(records), images=[[]] * len(records))
    rows = rows.set_column(rows.schema.get_field_index("__record__"), "__record__", pa.array(records))
    made = build(name, params)
    parts = [pa.table(made.partial(rows.slice(start, 3), OpContext())) for start in range(0, len(records), 3)]
    verdict = made.reduce(pa.concat_tables(parts), OpContext())
    assert np.flatnonzero(verdict.copies).tolist() == expected
    assert [bool(reason) for reason in verdict.reasons] == (verdict.copies == 0).tolist()
