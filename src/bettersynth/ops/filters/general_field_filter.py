"""Keep the rows for which a condition on their fields holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops._conditions import compile_condition
from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import DJ_STATS, field_values
from bettersynth.ops.base import IMAGES, RECORD, STATS, TEXT, Batch, Filter, Mask, Stats

_STAT = "general_field_filter_condition"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneralFieldFilter(Filter):
    """A Python-like condition, e.g. ``10 < num <= 30 and lang in ["en", "zh"] and __dj__stats__.text_len > 5``.

    As in Data-Juicer: names are fields, dots go into objects, and a field that is not there is None, with which every
    comparison is false (but ``not in``). What such a condition cannot hold is refused before any work. Values that do
    not compare (a text with a number) set their row aside; there the error drops it. With several steps of this kind
    each decides by its own condition; Data-Juicer reuses the first one's answer.

    Args:
        filter_condition: the condition; empty keeps everything.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    writes: ClassVar[tuple[str, ...]] = (STATS + _STAT,)

    filter_condition: str = ""

    def check(self) -> None:
        """The condition must be understood."""
        if self.filter_condition.strip():
            compile_condition(self.filter_condition)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """1 where the condition holds."""
        if not self.filter_condition.strip():
            return {_STAT: pa.array(np.ones(batch.num_rows, np.int64))}
        holds, names = compile_condition(self.filter_condition)
        columns = {name: _values(batch, name) for name in sorted(names)}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return {_STAT: pa.array([int(bool(holds(row))) for row in rows or [{}] * batch.num_rows], pa.int64())}

    def keep(self, stats: Stats) -> Mask:
        """Where it holds."""
        kept: Mask = np.asarray(stats[_STAT].to_numpy(zero_copy_only=False)) == 1
        return kept

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """One reason for all."""
        return ["the condition does not hold"] * len(dropped)


def _values(batch: Batch, name: str) -> list[Any]:
    """A field of every row; the stats as one object."""
    values = field_values(batch, name)[0]
    if f"{name}." != DJ_STATS:
        return values
    found = {c.removeprefix(STATS): batch.column(c).to_pylist() for c in batch.schema.names if c.startswith(STATS)}
    rows = zip(*found.values(), strict=True) if found else [()] * batch.num_rows
    return [{**(value or {}), **dict(zip(found, row, strict=True))} for value, row in zip(values, rows, strict=True)]
