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

from bettersynth.ops._arrow import array, call, take
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
            part = call("filter", table.select([*KEY[1:], *mine]), table.column(f"{name}|"))
            self._old[name] = part.combine_chunks()

    def find(self, name: str, batch: Batch) -> tuple[dict[str, Any], npt.NDArray[np.bool_]]:
        """Stat columns for the rows of a batch that are known, and which rows those are."""
        part = self._old.get(name)
        if part is None or not part.num_rows or not batch.num_rows:
            return {}, np.zeros(batch.num_rows, bool)
        known, asked = _codes(part, batch)
        place = np.searchsorted(known, asked)
        place[place == len(known)] = 0
        there = known[place] == asked
        rows = take(part, place[there])
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
            tables.append(part.append_column(f"{name}|", array(np.ones(part.num_rows, bool))))
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


def _codes(*tables: Any) -> list[npt.NDArray[Any]]:
    """Line and child number as one sortable value per row of each table: the line alone where no row is a child."""
    rows = [table.column(KEY[1]).to_numpy() for table in tables]
    children = [table.column(KEY[2]).to_numpy() for table in tables]
    if not any(child.any() for child in children):
        return rows
    return [_pairs(row, child) for row, child in zip(rows, children, strict=True)]


def _pairs(row: npt.NDArray[np.int64], child: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    pairs = np.empty(len(row), dtype=[("row", ">i8"), ("child", ">i8")])
    pairs["row"], pairs["child"] = row, child
    return pairs.view("V16").reshape(-1)


def _aligned(tables: list[pa.Table]) -> pa.Table:
    """One table with a row for every row that any operator scored; missing scores are null, their mark false."""
    codes = _codes(*tables)
    if all(np.array_equal(mine, codes[0]) for mine in codes) and _is_rising(codes[0]):  # filters that score at once
        columns = {name: table.column(name) for table in tables for name in table.column_names}
        return pa.table(columns).combine_chunks()
    every, first = np.unique(np.concatenate(codes), return_index=True)
    whole = take(pa.concat_tables([table.select(KEY[1:]) for table in tables]), first).combine_chunks()
    for table, mine in zip(tables, codes, strict=True):
        sorting = np.argsort(mine, kind="stable")
        place = np.searchsorted(mine[sorting], every)
        place[place == len(mine)] = 0
        there = mine[sorting][place] == every
        places = array(sorting[place], there)
        for column in table.column_names:
            if column not in KEY:
                values = call("take", table.column(column).combine_chunks(), places)
                whole = whole.append_column(column, array(there) if column.endswith("|") else values)
    return whole


def _is_rising(codes: npt.NDArray[Any]) -> bool:
    return codes.dtype == np.int64 and bool((codes[1:] > codes[:-1]).all())
