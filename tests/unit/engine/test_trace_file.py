"""A trace: a stream of many batches, put together by copying their messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.core import native
from bettersynth.core.sample import RowKey
from bettersynth.engine import trace
from bettersynth.engine.arrow_files import STREAM_END, message
from bettersynth.ops.base import IMAGES, KEY

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string()), ("texts", pa.list_(pa.string()))])
ROWS = st.lists(
    st.fixed_dictionaries({"n": st.integers(-(2**63), 2**63 - 1), "text": st.none() | st.text()}), max_size=8
)


@given(st.lists(ROWS, max_size=20), st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2))
def test_a_joined_stream_is_what_arrow_writes(tables: list[list[dict[str, object]]], metadata: dict[str, str]) -> None:
    schema = SCHEMA.with_metadata(metadata)
    rows = [[{**row, "texts": [row["text"], "b"]} for row in table] for table in tables]
    batches = [pa.RecordBatch.from_pylist(table, schema=SCHEMA) for table in rows]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        for batch in batches:
            file.write_batch(batch)
    parts = (schema.serialize(), *(message(batch) for batch in batches), STREAM_END)
    assert b"".join(bytes(part) for part in parts) == sink.getvalue().to_pybytes()


@pytest.mark.parametrize("size", [0, 7, -1, -8])
def test_a_part_of_a_trace_is_refused(size: int, tmp_path: Path) -> None:
    writer = trace.Writer(tmp_path / trace.TRACE_FILE, "stats.jsonl")
    writer.finish()
    whole = (tmp_path / trace.TRACE_FILE).read_bytes()
    (tmp_path / trace.TRACE_FILE).write_bytes(whole[:size])
    with pytest.raises(trace.DataError, match="damaged"):
        list(trace.load(tmp_path))


def test_events_come_back_as_they_were_noted(tmp_path: Path) -> None:
    images: list[list[str]] = [["a.jpg", "b.jpg"], [], ["c.jpg"]]
    columns = {
        KEY[0]: pa.array([0, 0, 12], pa.int32()),
        KEY[1]: pa.array([3, 4, 5]),
        KEY[2]: pa.array([0, 17, 0]),
        "id": pa.array(["x", "y", "z"]),
        IMAGES: pa.array(images, pa.list_(pa.string())),
        "stats.n": pa.array([1.5, 2.0, 0.25]),
    }
    batch, texts = pa.record_batch(columns), pa.array(["one", "two", "three"])
    events = trace.Events()
    events.note(batch, [2, 0], step=0, operator="m", action="changed", before=texts, after=pa.array(["1", "2", "3"]))
    events.note(batch, [1], step=1, operator="f", action="dropped", reason=["low"], scores=["n", "no"], before=texts)
    events.note(batch, [], step=1, operator="f", action="dropped", reason=[])
    events.note(batch, [1], step=2, operator="g", action="made", after=texts)
    events.set_aside(RowKey(1, 2, 3), "q", step=-1, operator="read", reason="bad")
    events.note(batch, None, step=3, operator="", action="kept")
    marker = trace.save(tmp_path / "0.trace", events)
    assert trace.is_there(tmp_path / "0.trace", marker) and not trace.is_there(tmp_path / "1.trace", marker)
    writer = trace.Writer(tmp_path / trace.TRACE_FILE, "stats.jsonl")
    writer.add((tmp_path / "0.trace").read_bytes())
    writer.finish()
    found = [
        tuple(event[name] for name in ("key", "id", "step", "operator", "action", "reason", "image", "before", "after"))
        for event in trace.load(tmp_path)
    ]
    assert found == [
        ("12:5", "z", 0, "m", "changed", "", "c.jpg", "three", "3"),
        ("0:3", "x", 0, "m", "changed", "", "a.jpg", "one", "1"),
        ("0:4:17", "y", 1, "f", "dropped", "low", "", "two", None),
        ("0:4:17", "y", 2, "g", "made", "", "", None, "two"),
        ("1:2:3", "q", -1, "read", "quarantined", "bad", "", None, None),
        ("0:3", "x", 3, "", "kept", "", "a.jpg", None, None),
        ("0:4:17", "y", 3, "", "kept", "", "", None, None),
        ("12:5", "z", 3, "", "kept", "", "c.jpg", None, None),
    ]
    assert [event["scores"] for event in trace.load(tmp_path, action="dropped")] == [{"n": 2.0}]
    for name, steps in (("0:4:17", [1, 2, 3]), ("y", [1, 2, 3]), ("0:4", []), ("0:3", [0, 3]), ("9:9:9:9", [])):
        assert [event["step"] for event in trace.history(tmp_path, name)] == steps


def test_groups_of_rows_that_are_noted_together_are_those_noted_one_by_one(tmp_path: Path) -> None:
    columns = {name: pa.array([0, 1, 2, 3], pa.int32() if name == KEY[0] else pa.int64()) for name in KEY}
    columns |= {"id": pa.array(list("abcd")), IMAGES: pa.array([["x"], None, [], ["y", "z"]], pa.list_(pa.string()))}
    batch = pa.record_batch({**columns, "stats.n": pa.array([1, 2, 3, 4]), "stats.m": pa.array([0.5, 1, 1, 2])})
    texts, what = pa.array(["t", "u", "v", "w"]), {"operator": "f", "action": "dropped"}
    groups = [([3, 0], ["n"], ["low", "high"]), ([], ["n"], []), ([2], ["n", "m"], ["low"])]
    both = []
    for is_together in (False, True):
        events = trace.Events()
        noted = [
            (rows, {**what, "step": step, "scores": scores, "reason": reasons, "before": texts})
            for step, (rows, scores, reasons) in enumerate(groups)
        ]
        if is_together:
            events.note_groups(batch, noted)
        else:
            for rows, each in noted:
                events.note(batch, rows, **each)
        both.append(events.batch().to_pylist())
    assert both[0] == both[1] and [row["scores"] for row in both[0]] == ['{"n":4}', '{"n":1}', '{"n":3,"m":1.0}']


@given(
    pairs=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), min_size=1, max_size=9),
    start=st.integers(0, 2),
    data=st.data(),
)
def test_texts_side_by_side_are_the_same_with_and_without_compiled_code(
    pairs: list[tuple[str, str]], start: int, data: st.DataObject
) -> None:
    library = native.library(1 << 20)
    if library is None:
        pytest.skip("no C compiler here")
    before, after = (pa.array(column, pa.string()).slice(start) for column in zip(*pairs, strict=True))
    places = st.lists(st.integers(0, max(0, len(before) - 1)), max_size=len(before))
    rows = np.array(data.draw(places), np.int64)[: len(before)]
    assert trace._agrees(library)
    found = trace._paired(library, before, after, rows)
    assert found.equals(trace._interleaved(before, after, rows)) and found.validate(full=True) is None


def test_a_trace_without_events_can_be_read(tmp_path: Path) -> None:
    writer = trace.Writer(tmp_path / trace.TRACE_FILE, "stats.jsonl")
    writer.finish()
    assert list(trace.load(tmp_path)) == []
    (tmp_path / "e.trace").touch()
    marker = trace.save(tmp_path / "e.trace", trace.Events())
    writer = trace.Writer(tmp_path / trace.TRACE_FILE, "stats.jsonl")
    writer.add((tmp_path / "e.trace").read_bytes())
    writer.finish()
    assert marker["trace_bytes"] > 0 and list(trace.load(tmp_path)) == []


def test_a_damaged_trace_is_refused_and_nothing_is_deleted(tmp_path: Path) -> None:
    events = trace.Events()
    for number in range(50):
        events.set_aside(RowKey(0, number, 0), f"row {number}", step=-1, operator="read", reason="bad")
    trace.save(tmp_path / "0.trace", events)
    writer = trace.Writer(tmp_path / trace.TRACE_FILE, "stats.jsonl")
    writer.add((tmp_path / "0.trace").read_bytes())
    writer.finish()
    beside = tmp_path / Path(trace.TRACE_FILE).with_suffix(".json")
    beside.write_text("{}")
    assert len(list(trace.load(tmp_path))) == 50
    whole = (tmp_path / trace.TRACE_FILE).read_bytes()
    at = len(trace.SCHEMA.serialize()) + 40
    (tmp_path / trace.TRACE_FILE).write_bytes(whole[:at] + bytes(400) + whole[at + 400 :])
    with pytest.raises(trace.DataError, match="cut off or damaged"):
        list(trace.load(tmp_path))
    assert beside.is_file()


@pytest.mark.parametrize("name", ["0:4", "x"])
def test_no_trace_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(trace.DataError, match="no trace here"):
        trace.history(tmp_path, name)
