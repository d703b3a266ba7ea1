"""Scores of a shard's rows, kept beside the stages: a new threshold meets old scores, whatever rows it lets through.

A stage's folder changes its name with every parameter; this file does not. It is named after what goes into the stage,
and its columns after the operator, the parameters that decide its score, and the steps before it that rewrite rows.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops.base import KEY, Batch


class Scores:
    """The scores of one shard; rows are found by their line and child number. A damaged file counts as none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._old: dict[str, pa.Table] = {}
        self._new: dict[str, list[pa.Table]] = {}
        if path is not None:
            with contextlib.suppress(OSError, pa.ArrowInvalid), pa.OSFile(str(path)) as handle:
                self._read(pa.ipc.open_file(handle).read_all())

    def _read(self, table: pa.Table) -> None:
        for name in dict.fromkeys(column.partition("|")[0] for column in table.column_names if "|" in column):
            mine = [column for column in table.column_names if column.startswith(f"{name}|")]
            part = table.select([*KEY[1:], *mine]).filter(table.column(f"{name}|"))
            self._old[name] = part.combine_chunks()

    def find(self, name: str, batch: Batch) -> tuple[dict[str, Any], npt.NDArray[np.bool_]]:
        """Stat columns for the rows of a batch that are known, and which rows those are."""
        part = self._old.get(name)
        if part is None or not part.num_rows or not batch.num_rows:
            return {}, np.zeros(batch.num_rows, bool)
        known, asked = _codes(part), _codes(batch)
        place = np.searchsorted(known, asked)
        place[place == len(known)] = 0
        there = known[place] == asked
        rows = part.take(pa.array(place[there]))
        stats = [column for column in part.column_names if column.startswith(f"{name}|") and column != f"{name}|"]
        return {column.partition("|")[2]: rows.column(column).combine_chunks() for column in stats}, there

    def add(self, name: str, batch: Batch, stats: dict[str, Any]) -> None:
        """Remember the scores of rows."""
        if self._path is not None and batch.num_rows:
            columns = {key: batch.column(key) for key in KEY[1:]}
            columns |= {f"{name}|{stat}": values for stat, values in stats.items()}
            self._new.setdefault(name, []).append(pa.table(columns))

    def save(self) -> None:
        """Write old and new scores in one file, rows in order. A full disk costs the cache, not the run."""
        if self._path is None or not self._new:
            return
        tables: list[pa.Table] = []
        for name in dict.fromkeys([*self._old, *self._new]):
            parts = [self._old[name].drop_columns([f"{name}|"])] if name in self._old else []
            part = pa.concat_tables([*parts, *self._new.get(name, ())], promote_options="permissive")
            tables.append(part.append_column(f"{name}|", pa.array(np.ones(part.num_rows, bool))))
        whole = _aligned(tables)
        temp = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(temp), "wb") as sink:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                with pa.ipc.new_file(sink, whole.schema, options=options) as writer:
                    writer.write_table(whole)
            temp.replace(self._path)
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


def _codes(rows: Any) -> npt.NDArray[np.void]:
    """Line and child number as one sortable value per row."""
    pairs = np.empty(rows.num_rows, dtype=[("row", ">i8"), ("child", ">i8")])
    pairs["row"], pairs["child"] = rows.column(KEY[1]).to_numpy(), rows.column(KEY[2]).to_numpy()
    return pairs.view("V16").reshape(-1)


def _aligned(tables: list[pa.Table]) -> pa.Table:
    """One table with a row for every row that any operator scored; missing scores are null, their mark false."""
    codes = [_codes(table) for table in tables]
    every = np.unique(np.concatenate(codes))
    pairs = every.view([("row", ">i8"), ("child", ">i8")])
    whole = pa.table({KEY[1]: pairs["row"].astype(np.int64), KEY[2]: pairs["child"].astype(np.int64)})
    for table, mine in zip(tables, codes, strict=True):
        order = np.argsort(mine, kind="stable")
        place = np.searchsorted(mine[order], every)
        place[place == len(mine)] = 0
        there = mine[order][place] == every
        take = pa.array(order[place], mask=~there)
        for column in table.column_names:
            if column not in KEY:
                values = table.column(column).combine_chunks().take(take)
                whole = whole.append_column(column, pa.array(there) if column.endswith("|") else values)
    return whole
