"""What happened to each row: kept, dropped, changed, made or set aside, by which operator and why.

A shard notes its events and compresses them, once, as a message of an Arrow stream; the parent copies the messages of
all shards between the stream's schema and its end.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import RowKey
from bettersynth.engine.arrow_files import STREAM_END, message, write_whole
from bettersynth.ops.base import ID, IMAGES, KEY, STATS, Batch

TRACE_FILE = "trace.arrows"
SCHEMA = pa.schema(
    [
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("child", pa.int64()),
        ("id", pa.string()),
        ("step", pa.int32()),
        ("operator", pa.string()),
        ("action", pa.string()),
        ("reason", pa.string()),
        ("scores", pa.string()),
        ("image", pa.string()),
        ("texts", pa.list_(pa.string())),  # before and after, side by side, where one compresses the other
    ]
)
_WHO = pa.schema([field.with_name(name) for field, name in zip(SCHEMA, (*KEY, ID), strict=False)])
_SAME, _ROW_BY_ROW = ("step", "operator", "action"), ("reason", "scores", "image", "before", "after")
_KEY = SCHEMA.names[: len(KEY)]
_IS_KEY = re.compile(r"\d{1,9}:\d{1,18}(:\d{1,18})?")
_STATS = b"stats"
_SCORES = "__dj__stats__"


class Events:
    """What happened in a shard, noted group by group; :meth:`batch` puts it together."""

    def __init__(self) -> None:
        self._who: list[Batch] = []
        self._what: list[dict[str, Any]] = []

    def note(self, batch: Batch, rows: Any, **what: Any) -> None:
        """The same thing happened to some rows of a batch.

        Args:
            rows: places in the batch; None for all.
            what: what all these rows share, with arrays where they differ:

                * step: place in the process list; -1 for reading, and the number of operators for the final ``kept``.
                * operator: its name. action: ``kept``, ``dropped``, ``changed``, ``made`` or ``quarantined``.
                * reason: a text, or a list with one for each row.
                * scores: names of the stats that led to it, as far as the batch has them. Those of ``kept`` rows stand
                  in the result's stats file, and are put in when a trace is read.
                * before, after: columns of texts, of all rows of the batch; ``before`` alone for dropped rows.
        """
        who, images = batch.select(_WHO.names), batch.column(IMAGES)
        places = None if rows is None else pa.array(rows, pa.int64())
        if places is not None and not len(places):
            return

        def of(column: Any) -> Any:
            return column if places is None else column.take(places)

        what["scores"] = _scores(batch, what.get("scores", ()), of)
        if len(images.flatten()):
            what["image"] = _first(of(images))
        what |= {name: of(what[name]) for name in ("before", "after") if name in what}
        self._add(of(who), what)

    def set_aside(self, key: RowKey, row_id: str, **what: Any) -> None:
        """A row is quarantined; it need not be in a batch."""
        values = ([key.file], [key.row], [key.child], [row_id])
        arrays = [pa.array(value, field.type) for value, field in zip(values, _WHO, strict=True)]
        self._add(pa.record_batch(arrays, schema=_WHO), {**what, "action": "quarantined"})

    def _add(self, who: Batch, what: dict[str, Any]) -> None:
        if who.num_rows:
            self._who.append(who)
            self._what.append(what)

    def batch(self) -> Batch:
        """All events in the order in which they were noted."""
        who = pa.Table.from_batches(self._who, schema=_WHO).combine_chunks()
        columns = dict(zip(SCHEMA.names, who.columns, strict=False))
        groups = pa.array(np.repeat(np.arange(len(self._who)), [batch.num_rows for batch in self._who]))
        for name in _SAME:
            values = pa.array([what[name] for what in self._what], SCHEMA.field(name).type)
            columns[name] = values.take(groups)
        columns |= {name: self._row_by_row(name) for name in _ROW_BY_ROW}
        columns["texts"] = _side_by_side(columns["before"], columns["after"])
        return pa.record_batch([_in_one(columns[name]) for name in SCHEMA.names], schema=SCHEMA)

    def _row_by_row(self, name: str) -> pa.ChunkedArray:
        """A column in which a group of events has nothing at all, one value for all or one a row."""
        nothing = None if name in ("before", "after") else ""
        parts = []
        for who, what in zip(self._who, self._what, strict=True):
            values = what.get(name)
            if values is None or isinstance(values, str):
                values = pa.repeat(pa.scalar(values or nothing, pa.string()), who.num_rows)
            parts.append(pa.array(values, pa.string()) if isinstance(values, list) else values)
        return pa.chunked_array(parts, pa.string())


def _in_one(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _side_by_side(before: pa.ChunkedArray, after: pa.ChunkedArray) -> Any:
    """For each row a list of both texts, of the first one alone, or of nothing."""
    has_one, has_both = (column.is_valid().to_numpy() for column in (before, after))
    sizes = np.where(has_both, 2, has_one.astype(np.int32))
    ends = np.cumsum(sizes, dtype=np.int32)
    places = np.zeros(int(sizes.sum()), np.int64)
    one, both = np.flatnonzero(sizes), np.flatnonzero(has_both)
    places[(ends - sizes)[one]] = one
    places[ends[both] - 1] = len(sizes) + both
    texts = pa.chunked_array([*before.chunks, *after.chunks], pa.string()).combine_chunks()
    return pa.ListArray.from_arrays(pa.array(np.r_[np.int32(0), ends]), texts.take(pa.array(places)))


def _first(images: Any) -> Any:
    """The first picture of every row, or an empty text."""
    counts = pc.fill_null(pc.list_value_length(images), 0).to_numpy()
    paths = images.flatten()
    first = paths.take(pa.array(np.minimum(np.cumsum(counts) - counts, max(0, len(paths) - 1)))) if len(paths) else ""
    return pc.fill_null(pc.if_else(pa.array(counts > 0), first, pa.scalar("", pa.string())), "")


def _scores(batch: Batch, names: Iterable[str], of: Callable[[Any], Any]) -> Any:
    """For some rows the named stats as JSON, those that the batch has; None when there are none."""
    columns = {name: of(batch.column(STATS + name)) for name in names if STATS + name in batch.schema.names}
    return pa.array(scores_json(columns), pa.string()) if columns else None


def scores_json(columns: Mapping[str, Any]) -> list[bytes]:
    """Stats by name, one column each, as a JSON object a row."""
    if all(_is_number(column) for column in columns.values()):
        # Whole columns at once, then the texts of the numbers put together; several times as fast as row by row.
        first, *others = (orjson.dumps(name)[1:-1].replace(b"%", b"%%") for name in columns)
        template = b"%b".join([b'{"%b":' % first, *(b',"%b":' % name for name in others), b"}"])
        numbers = (column.to_numpy() for column in columns.values())
        texts = (orjson.dumps(each, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for each in numbers)
        split = (text.split(b",") if text else [] for text in texts)
        return [template % row for row in zip(*split, strict=True)]
    values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return [orjson.dumps(dict(zip(columns, row, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY) for row in values]


def _is_number(column: Any) -> bool:
    return column.null_count == 0 and column.type in (pa.int64(), pa.int32(), pa.float64())


def save(path: Path, events: Events) -> dict[str, Any]:
    """Write what happened in a shard as :class:`Writer` takes it; returns what the shard's marker says of it.

    The disk is not waited for: :func:`is_there` notices a file that a power cut has left short, its digest any other
    damage, and the shard is done again.
    """
    data = message(events.batch())
    return {"trace": write_whole(path, data, is_synced=False), "trace_bytes": data.size}


def is_there(path: Path, marker: Mapping[str, Any]) -> bool:
    """Whether the file of a shard's events has its size."""
    return path.is_file() and path.stat().st_size == marker.get("trace_bytes")


class Writer:
    """A trace file that is being written.

    Args:
        stats: name of the file beside it that holds the scores of the kept rows, line by line.

    Raises:
        DataError: the disk is full; from every method.
    """

    def __init__(self, path: Path, stats: str) -> None:
        self._path = path
        with self._writing():
            self._handle = path.open("wb")
            self._handle.write(SCHEMA.with_metadata({_STATS: stats}).serialize())

    def add(self, data: bytes) -> None:
        """The events of a shard, as :func:`save` has written them."""
        with self._writing():
            self._handle.write(data)

    def finish(self) -> None:
        """Write the end of the file."""
        with self._writing():
            self._handle.write(STREAM_END)
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()

    def abandon(self) -> None:
        """Let go of the file, which is not whole."""
        with contextlib.suppress(OSError):
            self._handle.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self._path)
            raise DataError(t("cannot write the file"), where=where, got=error.strerror or str(error)) from error


def load(folder: Path, *, action: str | None = None, operator: str | None = None) -> Iterator[dict[str, Any]]:
    """Events of a processed data set, filtered by action and operator; ``scores`` is parsed.

    Raises:
        DataError: the folder holds no trace, or a part of one.
    """

    def wanted(batch: Batch) -> Any:
        mask = pc.is_valid(batch.column("id"))
        for name, value in (("action", action), ("operator", operator)):
            if value is not None:
                mask = pc.and_(mask, pc.equal(batch.column(name), value))
        return mask

    yield from _events(folder, wanted)


def history(folder: Path, row_id: str) -> list[dict[str, Any]]:
    """Everything that happened to the rows with an id (or hidden key), in the order of the operators."""
    numbers = dict(zip(_KEY, _numbers(row_id), strict=False)) if _IS_KEY.fullmatch(row_id) else {}

    def wanted(batch: Batch) -> Any:
        mask = pc.equal(batch.column("id"), row_id)
        if not numbers:
            return mask
        is_it = pc.equal(batch.column("file"), numbers["file"])
        for name in _KEY[1:]:
            is_it = pc.and_(is_it, pc.equal(batch.column(name), numbers.get(name, 0)))
        return pc.or_(mask, is_it)

    return sorted(_events(folder, wanted), key=lambda event: (RowKey(*_numbers(event["key"])), event["step"]))


def _events(folder: Path, wanted: Callable[[Batch], Any]) -> Iterator[dict[str, Any]]:
    path = folder / TRACE_FILE
    if not path.is_file():
        raise DataError(
            t("no trace here"),
            where=str(folder),
            expected=TRACE_FILE,
            hint=t("name a folder that bettersynth process has made"),
        )
    with contextlib.ExitStack() as stack:
        schema, batches = _open(path, stack)
        stats = folder / ((schema.metadata or {}).get(_STATS, b"").decode() or TRACE_FILE)
        has_stats = stats.name != TRACE_FILE and stats.is_file()
        lines: Iterator[bytes] = stack.enter_context(stats.open("rb")) if has_stats else iter(())
        for batch in batches:
            is_kept = pc.equal(batch.column("action"), "kept").to_numpy(zero_copy_only=False)
            beside = list(islice(lines, int(is_kept.sum())))
            mask = wanted(batch)
            rank = np.cumsum(is_kept)[mask.to_numpy(zero_copy_only=False)] - 1
            for values, place in zip(batch.filter(mask).to_pylist(), rank.tolist(), strict=True):
                key = RowKey(*(values.pop(name) for name in _KEY))
                event = {"key": str(key), **values}
                event["before"], event["after"] = (*event.pop("texts"), None, None)[:2]
                event["scores"] = orjson.loads(event["scores"]) if event["scores"] else {}
                if event["action"] == "kept" and place < len(beside):
                    event["scores"] = orjson.loads(beside[place])[_SCORES]
                yield event


def _open(path: Path, stack: contextlib.ExitStack) -> tuple[pa.Schema, Iterator[Batch]]:
    """The schema and the batches of a trace file.

    Raises:
        DataError: it is cut off or damaged; from reading the batches, too.
    """
    damaged = DataError(t("the trace is cut off or damaged"), where=str(path), hint=t("run the recipe again"))

    def batches(file: Any) -> Iterator[Batch]:
        try:
            yield from file
        except (pa.ArrowException, OSError) as error:
            raise damaged from error

    try:
        mapped = stack.enter_context(pa.memory_map(str(path)))
        end = mapped.size() - len(STREAM_END)
        if end < 0 or mapped.read_at(len(STREAM_END), end) != STREAM_END:
            raise damaged  # a stream that is cut between two messages can be read without an error
        file = pa.ipc.open_stream(mapped)
    except (pa.ArrowException, OSError) as error:
        raise damaged from error
    return file.schema, batches(file)


def _numbers(key: str) -> tuple[int, ...]:
    return tuple(map(int, key.split(":")))
