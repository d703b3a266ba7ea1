"""What happened to each row: kept, dropped, changed, made or set aside, by which operator and why."""

from __future__ import annotations

import contextlib
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
from bettersynth.ops.base import ID, IMAGES, KEY, STATS, Batch

TRACE_FILE = "trace.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("id", pa.string()),
        ("step", pa.int32()),
        ("operator", pa.string()),
        ("action", pa.string()),
        ("reason", pa.string()),
        ("scores", pa.string()),
        ("image", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
    ]
)


_FEW_VALUES = ("step", "operator", "action", "reason")
_GROUP_ROWS = 8192
_STATS = b"stats"
_SCORES = "__dj__stats__"
_EMPTY = {"step": 0, "before": None, "after": None}


def events(rows: int, **columns: Any) -> pa.Table:
    """Events as an Arrow table.

    Args:
        columns: a list or an Arrow array with one entry an event, or one value for all of them:

            * key: the row's hidden key as text (``file:line`` or ``file:line:child``). id: its own id.
            * step: place in the process list; -1 for reading, and the number of operators for the final ``kept``.
            * action: ``kept``, ``dropped``, ``changed``, ``made`` or ``quarantined``. operator, reason: texts.
            * scores: JSON of the stats that led to it; those of ``kept`` rows stand in the result's stats file, and
              are put in when a trace is read. image: the first picture.
            * before, after: texts, or nothing; ``before`` alone for dropped rows.
    """
    arrays = []
    for field in SCHEMA:
        values = columns.get(field.name, _EMPTY.get(field.name, ""))
        if isinstance(values, list):
            values = pa.array(values, field.type)
        elif not isinstance(values, pa.Array):
            values = pa.repeat(pa.scalar(values, field.type), rows)
        arrays.append(values if values.type == field.type else values.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def events_of(batch: Batch, rows: Any, **columns: Any) -> pa.Table:
    """Events of some rows of a batch, with their keys, ids and pictures; ``columns`` as :func:`events` takes them."""
    part = batch.select([*KEY, ID, IMAGES]).take(pa.array(rows, pa.int64()))
    images = part.column(IMAGES)
    first: Any = "" if not len(images.flatten()) else [(paths or [""])[0] for paths in images.to_pylist()]
    return events(part.num_rows, key=key_texts(part), id=part.column(ID), image=first, **columns)


def key_texts(batch: Batch) -> Any:
    """The hidden key of every row as text."""
    file, row, child = (batch.column(name) for name in KEY)
    keys = pc.binary_join_element_wise(file.cast(pa.string()), row.cast(pa.string()), ":")
    is_child = pc.not_equal(child, 0)
    if pc.any(is_child).as_py():
        keys = pc.if_else(is_child, pc.binary_join_element_wise(keys, child.cast(pa.string()), ":"), keys)
    return keys


def all_scores(batch: Batch, rows: Any, names: Iterable[str]) -> list[str]:
    """For each of some rows the named stats as JSON, those that the batch has; empty text when there are none."""
    there = [name for name in names if STATS + name in batch.schema.names]
    columns = [batch.column(STATS + name).take(pa.array(rows, pa.int64())).to_pylist() for name in there]
    return [scores_json(dict(zip(there, row, strict=True))) for row in zip(*columns, strict=True)] or [""] * len(rows)


class Writer:
    """A trace file that is being written.

    Args:
        stats: name of the file beside it that holds the scores of the kept rows, line by line.

    Raises:
        DataError: the disk is full; from every method.
    """

    def __init__(self, path: Path, stats: str) -> None:
        import pyarrow.parquet as pq  # takes long to import, and workers write no trace files

        self._path = path
        self._waiting: list[pa.Table] = []
        options: dict[str, Any] = {"use_dictionary": list(_FEW_VALUES), "write_statistics": False}
        with self._writing():
            self._file = pq.ParquetWriter(path, SCHEMA.with_metadata({_STATS: stats}), compression="zstd", **options)

    def add(self, table: pa.Table) -> None:
        """More events; they are written in groups of rows."""
        if table.num_rows:
            self._waiting.append(table)
        if sum(part.num_rows for part in self._waiting) >= _GROUP_ROWS:
            self._write()

    def finish(self) -> None:
        """Write what is left, and the end of the file."""
        if self._waiting:
            self._write()
        with self._writing():
            self._file.close()

    def abandon(self) -> None:
        """Let go of the file, which is not whole."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self) -> None:
        with self._writing():
            self._file.write_table(pa.concat_tables(self._waiting))
        self._waiting.clear()

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
        DataError: the folder holds no trace.
    """

    def wanted(batch: Batch) -> Any:
        mask = pc.is_valid(batch.column("key"))
        for name, value in (("action", action), ("operator", operator)):
            if value is not None:
                mask = pc.and_(mask, pc.equal(batch.column(name), value))
        return mask

    yield from _events(folder, wanted)


def history(folder: Path, row_id: str) -> list[dict[str, Any]]:
    """Everything that happened to the rows with an id (or hidden key), in the order of the operators."""

    def wanted(batch: Batch) -> Any:
        return pc.or_(pc.equal(batch.column("id"), row_id), pc.equal(batch.column("key"), row_id))

    return sorted(_events(folder, wanted), key=lambda event: (_key(event["key"]), event["step"]))


def _events(folder: Path, wanted: Callable[[Batch], Any]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = folder / TRACE_FILE
    if not path.is_file():
        raise DataError(
            t("no trace here"),
            where=str(folder),
            expected=TRACE_FILE,
            hint=t("name a folder that bettersynth process has made"),
        )
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(pq.ParquetFile(path))
        stats = folder / ((file.schema_arrow.metadata or {}).get(_STATS, b"").decode() or TRACE_FILE)
        has_stats = stats.name != TRACE_FILE and stats.is_file()
        lines: Iterator[bytes] = stack.enter_context(stats.open("rb")) if has_stats else iter(())
        for batch in file.iter_batches():
            is_kept = pc.equal(batch.column("action"), "kept").to_numpy(zero_copy_only=False)
            beside = list(islice(lines, int(is_kept.sum())))
            mask = wanted(batch)
            rank = np.cumsum(is_kept)[mask.to_numpy(zero_copy_only=False)] - 1
            for event, place in zip(batch.filter(mask).to_pylist(), rank.tolist(), strict=True):
                event["scores"] = orjson.loads(event["scores"]) if event["scores"] else {}
                if event["action"] == "kept" and place < len(beside):
                    event["scores"] = orjson.loads(beside[place])[_SCORES]
                yield event


def _key(text: str) -> RowKey:
    return RowKey(*map(int, text.split(":")))


def scores_json(stats: Mapping[str, Any]) -> str:
    """Stats of one row as JSON; empty text when there are none."""
    return orjson.dumps(stats, option=orjson.OPT_SERIALIZE_NUMPY).decode() if stats else ""
