"""What happened to each row: kept, dropped, changed, made or set aside, by which operator and why.

A shard notes its events and compresses them, once, as a message of an Arrow stream; the parent copies the messages of
all shards between the stream's schema and its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from bettersynth.core import native
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import RowKey
from bettersynth.engine.arrow_files import STREAM_END, message, write_at_once
from bettersynth.ops._arrow import array, call, flatten, keep, lengths, take
from bettersynth.ops.base import ID, IMAGES, KEY, STATS, Batch, Mask

TRACE_FILE = "trace.arrows"
_FEW = pa.dictionary(pa.int16(), pa.string())  # few different texts: each row holds the number of one
SCHEMA = pa.schema(
    [
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("child", pa.int64()),
        ("id", pa.string()),
        ("step", pa.int32()),
        ("operator", _FEW),
        ("action", _FEW),
        ("reason", pa.string()),
        ("scores", pa.string()),
        ("image", pa.string()),
        ("texts", pa.list_(pa.string())),  # before and after, side by side, where one compresses the other
    ]
)
_WHO = pa.schema([field.with_name(name) for field, name in zip(SCHEMA, (*KEY, ID), strict=False)])
_KEY = SCHEMA.names[: len(KEY)]
_IS_KEY = re.compile(r"\d{1,9}:\d{1,18}(:\d{1,18})?")
_STATS = b"stats"
_SCORES = "__dj__stats__"


class Events:
    """What happened in a shard, noted group by group; :meth:`batch` puts it together."""

    def __init__(self) -> None:
        self._groups: list[tuple[Batch, npt.NDArray[np.int64], dict[str, Any]]] = []

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
        self.note_groups(batch, [(np.arange(batch.num_rows) if rows is None else rows, what)])

    def note_groups(self, batch: Batch, groups: Sequence[tuple[Any, dict[str, Any]]]) -> None:
        """As :meth:`note`, for several groups of rows of a batch, which are taken out of it together."""
        groups = [(np.asarray(rows, np.int64), what) for rows, what in groups if len(rows)]
        if not groups:
            return
        names = [name for _, what in groups for name in what.get("scores", ()) if STATS + name in batch.schema.names]
        columns = {STATS + name: batch.column(STATS + name) for name in names}
        if len(batch.column(IMAGES).values):
            columns["image"] = batch.column(IMAGES)
        seen: Any = None
        if columns:
            every = np.concatenate([rows for rows, _ in groups])
            seen = _cut(pa.record_batch(list(columns.values()), list(columns)), every)
        who, start = batch.select(_WHO.names), 0
        for rows, what in groups:
            part: Any = None if seen is None else seen.slice(start, len(rows))
            start += len(rows)
            scores = [name for name in what.pop("scores", ()) if name in names]
            if scores:
                what["scores"] = scores_json({name: part.column(STATS + name) for name in scores})
            if "image" in columns:
                what["image"] = _first(part.column("image"))
            if "before" in what or "after" in what:
                what["texts"] = _texts(what.pop("before", None), what.pop("after", None), rows)
            self._groups.append((who, rows, what))

    def set_aside(self, key: RowKey, row_id: str, **what: Any) -> None:
        """A row is quarantined; it need not be in a batch."""
        values = ([key.file], [key.row], [key.child], [row_id])
        arrays = [pa.array(value, field.type) for value, field in zip(values, _WHO, strict=True)]
        who = pa.record_batch(arrays, schema=_WHO)
        self._groups.append((who, np.zeros(1, np.int64), {**what, "action": "quarantined"}))

    def batch(self) -> Batch:
        """All events in the order in which they were noted."""
        sizes = np.array([len(rows) for _, rows, _ in self._groups], np.int64)
        who, columns = self._who(), {}
        for place, column in enumerate(list(SCHEMA)[: len(_WHO)]):
            columns[column.name] = _joined([part.column(place) for part in who], column.type)
        columns["step"] = array(np.repeat(np.array([what["step"] for *_, what in self._groups], np.int32), sizes))
        for name in ("operator", "action"):
            columns[name] = _few([what[name] for *_, what in self._groups], sizes)
        for name in ("reason", "scores", "image"):
            columns[name] = self._row_by_row(name, int(sizes.sum()))
        texts = [what.get("texts") for *_, what in self._groups]
        each = [len(part) // size if part is not None else 0 for part, size in zip(texts, sizes.tolist(), strict=True)]
        ends = np.cumsum(np.repeat(np.array([0, *each], np.int32), [1, *sizes]), dtype=np.int32)
        values = _joined([part for part in texts if part is not None], pa.string())
        columns["texts"] = pa.ListArray.from_arrays(array(ends), values)
        return pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _who(self) -> list[Batch]:
        """Keys and ids of all events; those of operators in a row that saw the same rows are taken out together."""
        found = []
        for _, group in groupby(self._groups, lambda each: _memory(each[0])):
            parts = list(group)
            found.append(_cut(parts[0][0], np.concatenate([rows for _, rows, _ in parts])))
        return found

    def _row_by_row(self, name: str, rows: int) -> Any:
        """A column in which a group of events has nothing at all, one value for all or one a row."""
        if not any(name in what for *_, what in self._groups):
            return pa.nulls(rows, pa.string())
        parts: list[Any] = []
        for _, rows_of, what in self._groups:
            values = what.get(name)
            if values is None:
                values = pa.nulls(len(rows_of), pa.string())
            elif isinstance(values, str):
                values = pa.repeat(values, len(rows_of))
            parts.append(pa.array(values, pa.string()) if isinstance(values, list) else values)
        return _joined(parts, pa.string())


def _memory(batch: Batch) -> list[tuple[int, int, int]]:
    """Where the ids and the child numbers lie: the same for batches with the same rows, as long as these are kept."""
    columns = (batch.column(ID), batch.column(KEY[2]))
    return [(len(column), column.offset, column.buffers()[1].address) for column in columns]


def _cut(batch: Batch, rows: npt.NDArray[np.int64]) -> Batch:
    is_whole = len(rows) == batch.num_rows and bool((rows == np.arange(len(rows))).all())
    return batch if is_whole else take(batch, rows)


def _joined(parts: list[Any], kind: Any) -> Any:
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts) if parts else pa.array([], kind)


def _few(values: list[str], sizes: npt.NDArray[np.int64]) -> Any:
    """A column of few different texts: ``values[i]`` for ``sizes[i]`` rows."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    rows = np.repeat(np.array([places[value] for value in values], np.int16), sizes)
    return pa.DictionaryArray.from_arrays(array(rows), pa.array(list(places), pa.string()))


def _texts(before: Any, after: Any, rows: npt.NDArray[np.int64]) -> Any:
    """The text of each row before, or both side by side (nothing before a row that was made)."""
    if after is None:
        return take(before, rows)
    library = native.library(len(rows))
    if library is not None and _can_pair(before, after) and _agrees(library):
        return _paired(library, before, after, rows)
    return _interleaved(before, after, rows)


def _interleaved(before: Any, after: Any, rows: npt.NDArray[np.int64]) -> Any:
    first = pa.nulls(len(rows), pa.string()) if before is None else take(before, rows)
    places = np.arange(2 * len(rows)).reshape(2, len(rows)).T.ravel()
    return take(pa.concat_arrays([first, take(after, rows)]), places)


def _can_pair(*columns: Any) -> bool:
    return all(column is not None and column.type == pa.string() and not column.null_count for column in columns)


def _paired(library: Any, before: Any, after: Any, rows: npt.NDArray[np.int64]) -> Any:
    """As :func:`_interleaved`, copying each text once."""
    texts, starts = (ctypes.c_void_p * 2)(), (ctypes.c_void_p * 2)()
    ends, kept = np.zeros(2 * len(rows) + 1, np.int32), []
    for side, column in enumerate((before, after)):
        _, offsets, data = column.buffers()
        where = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset)
        ends[side + 1 :: 2] = where[rows + 1] - where[rows]
        texts[side], starts[side] = native.address(data or ends), native.address(where)
        kept += [data, where]
    np.cumsum(ends, out=ends)
    found = np.empty(int(ends[-1]), np.uint8)
    library.bs_side_by_side(
        texts, starts, native.address(rows), ctypes.c_int64(len(rows)), *map(native.address, (ends, found))
    )
    return pa.Array.from_buffers(pa.string(), 2 * len(rows), [None, pa.py_buffer(ends), pa.py_buffer(found)])


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    """Whether the compiled function says what Arrow says."""
    texts = pa.array(["", "a", "bc", "\u00e9", "", "long" * 9])
    pairs = ((texts, texts.slice(0)), (texts.slice(1, 4), texts.slice(2)), (texts.slice(4, 1), texts.slice(0, 1)))
    rows = [np.arange(len(before))[::-1].copy() for before, _ in pairs]
    return all(_paired(library, *p, r).equals(_interleaved(*p, r)) for p, r in zip(pairs, rows, strict=True))


def _first(images: Any) -> Any:
    """The first picture of every row, or nothing."""
    counts, paths = lengths(images), flatten(images)
    return call("take", paths, array(np.cumsum(counts) - counts, counts > 0))


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
    return {"trace": write_at_once(path, data), "trace_bytes": data.size}


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

    def wanted(batch: Batch) -> Mask:
        mask = np.ones(batch.num_rows, bool)
        for name, value in (("action", action), ("operator", operator)):
            mask &= True if value is None else _holds(batch, name, value)
        return mask

    yield from _events(folder, wanted)


def history(folder: Path, row_id: str) -> list[dict[str, Any]]:
    """Everything that happened to the rows with an id (or hidden key), in the order of the operators."""
    numbers = dict(zip(_KEY, _numbers(row_id), strict=False)) if _IS_KEY.fullmatch(row_id) else {}

    def wanted(batch: Batch) -> Mask:
        mask = _holds(batch, ID, row_id)
        if numbers:
            mask |= np.all([_holds(batch, name, numbers.get(name, 0)) for name in _KEY], axis=0)
        return mask

    return sorted(_events(folder, wanted), key=lambda event: (RowKey(*_numbers(event["key"])), event["step"]))


def _holds(batch: Batch, name: str, value: str | int) -> Mask:
    """In which rows a column has a value."""
    return np.asarray(call("equal", batch.column(name), pa.scalar(value)).to_numpy(zero_copy_only=False))


def _events(folder: Path, wanted: Callable[[Batch], Mask]) -> Iterator[dict[str, Any]]:
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
            is_kept = _holds(batch, "action", "kept")
            beside = list(islice(lines, int(is_kept.sum())))
            mask = wanted(batch)
            rank = np.cumsum(is_kept)[mask] - 1
            for values, place in zip(keep(batch, mask).to_pylist(), rank.tolist(), strict=True):
                key = RowKey(*(values.pop(name) for name in _KEY))
                event = {"key": str(key), **values, **{name: values[name] or "" for name in ("reason", "image")}}
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
