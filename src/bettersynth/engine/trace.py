"""What happened to each row: kept, dropped, changed, made or set aside, by which operator and why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import RowKey

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


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One event of one row.

    Args:
        key: the row's hidden key as text (``file:line`` or ``file:line:child``).
        step: place in the process list; -1 for reading, and the number of operators for the final ``kept``.
        action: ``kept``, ``dropped``, ``changed``, ``made`` or ``quarantined``.
        scores: JSON of the stats that led to it (all stats for ``kept``).
        before, after: texts; ``before`` alone for dropped rows.
    """

    key: str
    id: str
    step: int
    operator: str
    action: str
    reason: str = ""
    scores: str = ""
    image: str = ""
    before: str | None = None
    after: str | None = None


def to_table(rows: Iterable[TraceRow]) -> pa.Table:
    """Trace rows as an Arrow table."""
    listed = list(rows)
    columns = {name: pa.array([getattr(row, name) for row in listed], SCHEMA.field(name).type) for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)


@contextlib.contextmanager
def writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Opens a trace file for writing; call what it gives with one table after the other.

    Raises:
        DataError: the disk is full.
    """
    waiting: list[pa.Table] = []
    try:
        with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=list(_FEW_VALUES)) as file:

            def write() -> None:
                if waiting:
                    file.write_table(pa.concat_tables(waiting))
                    waiting.clear()

            def add(table: pa.Table) -> None:
                if table.num_rows:
                    waiting.append(table)
                if sum(part.num_rows for part in waiting) >= _GROUP_ROWS:
                    write()

            yield add
            write()
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(path), got=error.strerror or str(error)) from error


def load(folder: Path, *, action: str | None = None, operator: str | None = None) -> Iterator[dict[str, Any]]:
    """Events of a processed data set, filtered by action and operator; ``scores`` is parsed.

    Raises:
        DataError: the folder holds no trace.
    """
    for batch in _batches(folder):
        mask = pc.is_valid(batch.column("key"))
        for name, wanted in (("action", action), ("operator", operator)):
            if wanted is not None:
                mask = pc.and_(mask, pc.equal(batch.column(name), wanted))
        yield from map(_parsed, batch.filter(mask).to_pylist())


def history(folder: Path, row_id: str) -> list[dict[str, Any]]:
    """Everything that happened to the rows with an id (or hidden key), in the order of the operators."""
    found: list[dict[str, Any]] = []
    for batch in _batches(folder):
        mask = pc.or_(pc.equal(batch.column("id"), row_id), pc.equal(batch.column("key"), row_id))
        found.extend(map(_parsed, batch.filter(mask).to_pylist()))
    return sorted(found, key=lambda event: (_key(event["key"]), event["step"]))


def _batches(folder: Path) -> Iterator[Any]:
    path = folder / TRACE_FILE
    if not path.is_file():
        raise DataError(
            t("no trace here"),
            where=str(folder),
            expected=TRACE_FILE,
            hint=t("name a folder that bettersynth process has made"),
        )
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches()


def _parsed(event: dict[str, Any]) -> dict[str, Any]:
    event["scores"] = orjson.loads(event["scores"]) if event["scores"] else {}
    return event


def _key(text: str) -> RowKey:
    return RowKey(*map(int, text.split(":")))


def scores_json(stats: Mapping[str, Any]) -> str:
    """Stats of one row as JSON; empty text when there are none."""
    return orjson.dumps(stats, option=orjson.OPT_SERIALIZE_NUMPY).decode() if stats else ""
