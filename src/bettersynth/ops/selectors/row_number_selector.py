"""Write each row's number into a field of its own; every row stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import Batch, Selector, Stats, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class RowNumberSelector(Selector):
    """Numbers the rows that are there at this point, from 0; what ``index_key`` of any operator does in Data-Juicer.

    Args:
        key: name of the field.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    key: str = "row_number"

    def check(self) -> None:
        """The field must have a name of its own."""
        if not self.key or self.key in ("id", "text", "images"):
            raise ValueError(f"cannot write row numbers into the field '{self.key}'")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """Nothing is needed of a row but its place."""
        return {}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Every row with its number."""
        n = partials.num_rows
        return Verdict(np.ones(n, np.int64), [""] * n, fields={self.key: np.arange(n)})
