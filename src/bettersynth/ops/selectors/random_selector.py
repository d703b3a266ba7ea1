"""Keep a random part of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import Batch, Selector, Stats, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomSelector(Selector):
    """The rows that Data-Juicer would choose: the first n of a permutation seeded with 42.

    They stay in data set order (Data-Juicer returns them shuffled). With n above the number of rows all rows are
    kept and the first of the permutation repeated.

    Args:
        select_ratio: share of the rows.
        select_num: number of rows; with both given the smaller result counts.
        seed: of the permutation (ours; Data-Juicer always uses 42).
    """

    reads: ClassVar[tuple[str, ...]] = ()
    keep_params: ClassVar[tuple[str, ...]] = ("select_ratio", "select_num", "seed")

    select_ratio: float | None = None
    select_num: int | None = None
    seed: int = 42

    def check(self) -> None:
        """Something must be asked for."""
        if not self.select_ratio and not self.select_num:
            raise ValueError("give select_ratio (0 to 1) or select_num")
        if self.select_ratio is not None and not 0 <= self.select_ratio <= 1:
            raise ValueError(f"select_ratio must be between 0 and 1, not {self.select_ratio}")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """One small number a row, only to count them."""
        return {"row": pa.array(np.zeros(batch.num_rows, np.int8))}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Count how often each row stands among the first n of the (repeated) permutation."""
        total = partials.num_rows
        wanted = [int(self.select_ratio * total)] if self.select_ratio else []
        wanted += [self.select_num] if self.select_num else []
        order = np.random.default_rng(self.seed).permutation(total)
        copies = np.bincount(np.resize(order, min(wanted)), minlength=total)
        return Verdict(copies.astype(np.int64), ["" if n else "not drawn" for n in copies])
