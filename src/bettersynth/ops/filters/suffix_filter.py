"""Keep the rows that come from files of certain kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_of_every_row
from bettersynth.ops.base import RECORD, Batch, Filter, Mask, Stats

_FIELD = "__dj__suffix__"


@dataclass(frozen=True, kw_only=True, slots=True)
class SuffixFilter(Filter):
    """Looks at the field ``__dj__suffix__``, in which Data-Juicer's formatters note a row's file suffix.

    Args:
        suffixes: one suffix or several, spelled as in the field, e.g. ``.txt``; none keeps everything.
        reversed_range: keep the other rows.
    """

    reads: ClassVar[tuple[str, ...]] = (RECORD,)
    writes: ClassVar[tuple[str, ...]] = ("stats.suffix",)
    keep_params: ClassVar[tuple[str, ...]] = ("suffixes", "reversed_range")

    suffixes: str | tuple[str, ...] | None = ()
    reversed_range: bool = False

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``suffix``: as it stands in the row; null where nothing is asked for."""
        values = field_of_every_row(batch, _FIELD) if self.suffixes else [None] * batch.num_rows
        return {"suffix": pa.array([None if value is None else str(value) for value in values], pa.string())}

    def keep(self, stats: Stats) -> Mask:
        """Among the suffixes, or, reversed, not."""
        column = stats["suffix"]
        if not self.suffixes:
            return np.ones(len(column), bool)
        wanted = {self.suffixes} if isinstance(self.suffixes, str) else set(self.suffixes)
        return np.array([(value in wanted) != self.reversed_range for value in column.to_pylist()], bool)

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """One reason for all."""
        return ["suffix not wanted"] * len(dropped)
