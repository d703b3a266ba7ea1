"""What models said, row by row, shared by every result folder of a workspace: several recipes over one pool ask once.

One SQLite file per operator, parameters and model weights. A row's name in it covers what the operator reads: texts,
scores, and size and time of every picture; for operators that draw by chance also the row's key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from bettersynth.engine.phase import Phase
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, Batch, Filter, Made, Stats, row_keys, with_column

_WAIT_S = 60.0
_AT_ONCE = 500
_SCHEMA = b"schema"


class Results:
    """Cached results of one phase. When the folder cannot be used, everything is computed and nothing is said."""

    def __init__(self, folder: Path, phase: Phase, where: str) -> None:
        self._phase = phase
        self._where = where
        self._database: sqlite3.Connection | None = None
        self.found = self.computed = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{phase.operator.name}-{phase.kind.removesuffix('_keep')}-{phase.key[:16]}.sqlite"
            database = sqlite3.connect(folder / name, timeout=_WAIT_S, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("CREATE TABLE IF NOT EXISTS results (name BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
            self._database = database
        except (OSError, sqlite3.Error):
            self._database = None

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    # ------------------------------------------------------------ three kinds of work

    def stats(self, batch: Batch, ctx: OpContext, compute: Callable[[Batch, OpContext], Stats]) -> Stats:
        """Stat columns of a filter: those known, the rest computed."""

        def fresh(part: Batch) -> dict[str, Any]:
            return dict(compute(part, ctx))

        return self._columns(batch, ctx, fresh)

    def applied(self, batch: Batch, ctx: OpContext, compute: Callable[[Batch, OpContext], Batch]) -> Batch:
        """The batch of a mapper with the columns it writes."""

        def fresh(part: Batch) -> dict[str, Any]:
            out = compute(part, ctx)
            if out.num_rows != part.num_rows:
                raise ValueError(f"{part.num_rows} rows became {out.num_rows}")
            return {name: out.column(name) for name in self._phase.operator.adds()}

        for name, values in self._columns(batch, ctx, fresh).items():
            batch = with_column(batch, name, values)
        return batch

    def made(self, batch: Batch, ctx: OpContext, compute: Callable[[Batch, OpContext], Made]) -> Made:
        """Rows of a generator: for each source row, a list of (is a child, written values)."""
        written = list(self._phase.operator.adds())

        def fresh(part: Batch) -> dict[str, Any]:
            out = compute(part, ctx)
            rows: list[list[Any]] = [[] for _ in range(part.num_rows)]
            values = {name: out.batch.column(name).to_pylist() for name in written}
            for place, source in enumerate(out.source.tolist()):
                rows[source].append([bool(out.is_child[place]), {name: values[name][place] for name in written}])
            return {"rows": pa.array([orjson.dumps(row).decode() for row in rows], pa.string())}

        found = [orjson.loads(row) for row in self._columns(batch, ctx, fresh)["rows"].to_pylist()]
        source = [number for number, rows in enumerate(found) for _ in rows]
        listed = [entry for rows in found for entry in rows]
        out = batch.take(pa.array(source, pa.int64()))
        for name in written:
            kind = batch.schema.field(name).type if name in batch.schema.names else None
            out = with_column(out, name, pa.array([values[name] for _, values in listed], kind))
        return Made(out, np.array(source, np.int64), np.array([is_child for is_child, _ in listed], bool))

    # ------------------------------------------------------------ rows in the file

    def _columns(self, batch: Batch, ctx: OpContext, fresh: Callable[[Batch], dict[str, Any]]) -> dict[str, Any]:
        if self._database is None or not batch.num_rows:
            return fresh(batch)
        names = self._names(batch, ctx)
        try:
            schema, known = self._get(names)
        except sqlite3.Error:
            self.close()
            return fresh(batch)
        missing = [row for row, name in enumerate(names) if name not in known]
        self.found += len(names) - len(missing)
        self.computed += len(missing)
        if schema is None or len(missing) == len(names):
            columns = fresh(batch)
            self._put(names, columns)
            return columns
        values = {row: orjson.loads(known[name]) for row, name in enumerate(names) if name in known}
        if missing:
            columns = fresh(batch.take(pa.array(missing, pa.int64())))
            self._put([names[row] for row in missing], columns)
            listed = {name: _plain(column).to_pylist() for name, column in columns.items()}
            schema = pa.schema([(name, _plain(column).type) for name, column in columns.items()])
            for place, row in enumerate(missing):
                values[row] = [listed[name][place] for name in schema.names]
        rows = range(batch.num_rows)
        return {
            field.name: pa.array([values[row][place] for row in rows], field.type) for place, field in enumerate(schema)
        }

    def _names(self, batch: Batch, ctx: OpContext) -> list[bytes]:
        operator = self._phase.operator
        reads = dict.fromkeys([*operator.reads, *operator.needs()])
        columns = [name for name in reads if name != IMAGES and name in batch.schema.names]
        parts = [batch.column(name).to_pylist() for name in columns]
        if not isinstance(operator, Filter) and self._phase.kind != "partial":
            parts.append([str(key) for key in row_keys(batch)])
        if IMAGES in reads:
            parts.append([self._pictures(row, paths) for row, paths in _paths(batch, ctx)])
        tokens = repr(ctx.tokens) + ctx.on_truncated + self._where
        rows = zip(*parts, strict=True) if parts else [()] * batch.num_rows
        return [xxhash.xxh3_128_digest(tokens.encode() + orjson.dumps(row)) for row in rows]

    def _pictures(self, names: Sequence[str], paths: Iterable[Path]) -> list[list[Any]]:
        found: list[list[Any]] = []
        for name, path in zip(names, paths, strict=True):
            try:
                stat = path.stat()
                found.append([Path(name).name, stat.st_size, stat.st_mtime_ns])
            except OSError:
                found.append([name, 0, 0])
        return found

    def _get(self, names: list[bytes]) -> tuple[Any, dict[bytes, bytes]]:
        assert self._database is not None  # the caller looks
        found: dict[bytes, bytes] = {}
        asked = [_SCHEMA, *dict.fromkeys(names)]
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(self._database.execute(f"SELECT name, value FROM results WHERE name IN ({marks})", part))
        stored = found.pop(_SCHEMA, None)
        return (pa.ipc.read_schema(pa.py_buffer(stored)) if stored else None), found

    def _put(self, names: list[bytes], columns: dict[str, Any]) -> None:
        assert self._database is not None  # the caller looks
        arrays = {name: _plain(column) for name, column in columns.items()}
        lists = [array.to_pylist() for array in arrays.values()]
        rows = [(name, orjson.dumps(list(row))) for name, row in zip(names, zip(*lists, strict=True), strict=True)]
        schema = pa.schema([(name, array.type) for name, array in arrays.items()])
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(
                "INSERT OR IGNORE INTO results VALUES (?, ?)", (_SCHEMA, schema.serialize().to_pybytes())
            )
            self._database.executemany("INSERT OR IGNORE INTO results VALUES (?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error:  # a full disk costs the cache, not the run
            self.close()


def _paths(batch: Batch, ctx: OpContext) -> Iterable[tuple[Sequence[str], Iterable[Path]]]:
    names = [row or [] for row in batch.column(IMAGES).to_pylist()]
    return zip(names, ctx.image_paths(batch), strict=True)


def _plain(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
