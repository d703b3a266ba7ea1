"""Equal to Data-Juicer 1.6.1's operator code on rows with corners (answers by tools/record_data_juicer_rows.py)."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from bettersynth.core.errors import DataError
from bettersynth.ops._catalog import operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import RECORD, Filter, Generator, Made

HERE = Path(__file__).parent
GOLD: dict[str, Any] = json.loads((HERE / "data_juicer_rows.json").read_text(encoding="utf-8"))
sys.path.insert(0, str(HERE))  # the rows lie beside this file, for both sides of the comparison
tricky, markup = importlib.import_module("tricky_rows"), importlib.import_module("tricky_markup")


def build(case: dict[str, Any], folder: Path | None = None) -> Any:
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in case["params"].items()}
    if params.get("punkt") == "PUNKT" and folder is not None:
        tricky.write_punkt(folder)
        params["punkt"] = str(folder)
    made = operator_class(case["operator"])(**params)
    made.check()
    return made


def with_records(rows: Any, records: list[dict[str, Any]]) -> Any:
    column = pa.array([orjson.dumps(record).decode() for record in records], pa.string())
    return rows.set_column(rows.schema.get_field_index(RECORD), RECORD, column)


def case_name(case: dict[str, Any]) -> str:
    return case["operator"] + "".join(f" {key}={value}" for key, value in case["params"].items())


def cases(*kinds: str) -> list[dict[str, Any]]:
    return [case for case in GOLD["cases"] if case["operator"].endswith(kinds)]


def test_the_recording_is_of_these_rows_and_parameters() -> None:
    found = {name: [(c["params"], c["rows"]) for c in GOLD["cases"] if c["operator"] == name] for name in tricky.CASES}
    assert found == tricky.CASES and sum(map(len, found.values())) == len(GOLD["cases"])


@pytest.mark.parametrize("case", cases("_filter"), ids=case_name)
def test_filters(case: dict[str, Any], batch: Any) -> None:
    made, rows = build(case), tricky.ROWS[case["rows"]]
    assert isinstance(made, Filter)
    whole = with_records(batch([row["text"] for row in rows], images=[row["images"] for row in rows]), rows)
    for place, expected in enumerate(case["answers"]):
        one = whole.slice(place, 1)
        if expected == "error":
            with pytest.raises((DataError, TypeError, OverflowError)):
                made.score(one, OpContext())
            continue
        assert made.keep(made.score(one, OpContext())).tolist() == [expected], rows[place]
    good = [place for place, expected in enumerate(case["answers"]) if expected != "error"]
    together = whole.take(pa.array(good, pa.int64()))
    stats = made.score(together, OpContext())
    kept = made.keep(stats)
    assert kept.tolist() == [case["answers"][place] for place in good]
    dropped = np.flatnonzero(~kept)
    assert all(made.reasons(stats, dropped)) and len(made.reasons(stats, dropped)) == len(dropped)


@pytest.mark.parametrize("case", cases("document_line_deduplicator"), ids=case_name)
def test_lines(case: dict[str, Any], batch: Any) -> None:
    texts = [row["text"] for row in tricky.ROWS[case["rows"]]]
    made, rows, ctx = build(case), batch(texts), OpContext()
    verdict = made.reduce(pa.table(made.partial(rows, ctx)), ctx)
    assert verdict.copies.all() and set(verdict.fields) == {"__shared_lines__"}
    marked = rows.append_column("__shared_lines__", verdict.fields["__shared_lines__"])
    done = made.finish(marked, ctx)
    assert done.schema.names == rows.schema.names
    assert done.column("text").to_pylist() == case["answers"]
    assert (case["answers"] != texts) == (case["rows"] == "pages")


def check_made(made: Made, rows: list[dict[str, Any]], answers: list[list[dict[str, Any]]]) -> None:
    """Rows of a generator: the record of their source, with what the generator wrote."""
    found: list[list[dict[str, Any]]] = [[] for _ in rows]
    names = [name for name in made.batch.schema.names if not name.startswith("__") and name != "id"]
    for place, source in enumerate(made.source.tolist()):
        assert made.is_child[place] == bool(found[source])
        written = {name: made.batch.column(name)[place].as_py() for name in names}
        found[source].append({name: value for name, value in written.items() if rows[source].get(name) != value})
    assert found == answers and sum(map(len, found)) > len(rows) / 2


@pytest.mark.parametrize("case", cases("latex_merge_tex_mapper"), ids=case_name)
def test_archives(case: dict[str, Any], batch: Any, tmp_path: Path) -> None:
    markup.write_archives(tmp_path)
    made, rows = build(case), tricky.ROWS[case["rows"]]
    whole = with_records(batch([""] * len(rows), images=[[] for _ in rows]), rows)
    left_out = 0
    for place, (row, expected) in enumerate(zip(rows, case["answers"], strict=True)):
        ctx = OpContext(image_roots=[tmp_path])
        if row["compressed_file"] in markup.BAD_ARCHIVES:  # an empty text there
            assert expected == {}
            with pytest.raises(DataError, match="archive"):
                made.apply(whole.slice(place, 1), ctx)
            continue
        (text,) = made.apply(whole.slice(place, 1), ctx).column("text").to_pylist()
        assert text == expected.get("text", ""), row
        left_out += ctx.flags.total()
    assert (left_out > 0) == bool(set(case["params"]) - {"separator"})


@pytest.mark.parametrize("case", [c for c in cases("_mapper") if c["rows"] != "archives"], ids=case_name)
def test_mappers(case: dict[str, Any], batch: Any, tmp_path: Path) -> None:
    if case["operator"] == "chinese_convert_mapper":
        pytest.importorskip("opencc")
    made, rows = build(case, tmp_path), tricky.ROWS[case["rows"]]
    whole = with_records(batch([row["text"] for row in rows], images=[[] for _ in rows]), rows)
    if isinstance(made, Generator):
        check_made(made.make(whole, OpContext()), rows, case["answers"])
        return
    out = made.apply(whole, OpContext())
    for place, (row, expected) in enumerate(zip(rows, case["answers"], strict=True)):
        record = orjson.loads(out.column(RECORD)[place].as_py())
        record["text"] = out.column("text")[place].as_py()
        extra = {name for name in out.schema.names if name not in whole.schema.names}
        record |= {name: orjson.loads(out.column(name)[place].as_py()) for name in extra}
        assert {key: value for key, value in record.items() if value != row.get(key)} == expected, row
    assert sum(map(bool, case["answers"])) > (5 if len(rows) > 20 else -1)
