"""Repeat, or thin out, the rows until there are exactly as many as the training will see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.core.seed import derive_seed
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import STATS, Batch, Selector, Stats, Verdict, stat_values


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatToBudgetSelector(Selector):
    """Every row the same number of times, give or take one; few good rows repeated beat many bad ones seen once.

    Which rows get one more (or stay, when there are too many) is drawn by the run's seed, or decided by a stat.

    Args:
        num_samples: rows wanted, e.g. ``"{budget}"``.
        prefer: stat whose best rows get the extra copy, or stay.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    keep_params: ClassVar[tuple[str, ...]] = ("num_samples",)

    num_samples: int
    prefer: str | None = None

    def needs(self) -> tuple[str, ...]:
        """The preferred stat's column, if any."""
        return (STATS + self.prefer,) if self.prefer else ()

    def check(self) -> None:
        """At least one sample."""
        if self.num_samples < 1:
            raise ValueError("num_samples must be at least 1")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The preferred stat, or zeros."""
        if self.prefer is None:
            return {"value": pa.array(np.zeros(batch.num_rows))}
        return {"value": pa.array(stat_values(batch.column(STATS + self.prefer)))}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Whole rounds for all rows, the rest for the first of an order."""
        total = partials.num_rows
        shuffled = np.random.default_rng(derive_seed(ctx.seed, self.name)).permutation(total)
        values = np.nan_to_num(partials.column("value").to_numpy(), nan=-np.inf)
        order = shuffled[np.argsort(-values[shuffled], kind="stable")]
        copies = np.full(total, self.num_samples // total, np.int64)
        copies[order[: self.num_samples % total]] += 1
        facts = {"rows": total, "samples": self.num_samples, "epochs": round(self.num_samples / total, 3)}
        return Verdict(copies, ["" if n else "over the budget" for n in copies], {}, facts)
