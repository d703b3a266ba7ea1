"""Keep rows whose stat from an earlier step lies in a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import STATS, Batch, Filter, Mask, Stats, stat_values


@dataclass(frozen=True, kw_only=True, slots=True)
class StatRangeFilter(Filter):
    """A second look at a number that an earlier step computed (ours). Rows without a value stay.

    Args:
        stat: its name; lists with one value per picture are averaged.
        min_value: smallest value; None for no limit.
        max_value: largest value; None for no limit.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    keep_params: ClassVar[tuple[str, ...]] = ("min_value", "max_value")

    stat: str
    min_value: float | None = None
    max_value: float | None = None

    def check(self) -> None:
        """A bound is needed, and the bounds must not cross."""
        if self.min_value is None and self.max_value is None:
            raise ValueError("give min_value or max_value")
        if self.min_value is not None and self.max_value is not None and self.min_value > self.max_value:
            raise ValueError(f"min_value {self.min_value} is above max_value {self.max_value}")

    def needs(self) -> tuple[str, ...]:
        """The stat's column."""
        return (STATS + self.stat,)

    def adds(self) -> tuple[str, ...]:
        """The same column, unchanged."""
        return (STATS + self.stat,)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """The stat as it is."""
        return {self.stat: batch.column(STATS + self.stat)}

    def keep(self, stats: Stats) -> Mask:
        """Inside the range, or without a value."""
        values = stat_values(stats[self.stat])
        low = -np.inf if self.min_value is None else self.min_value
        high = np.inf if self.max_value is None else self.max_value
        kept: Mask = ~((values < low) | (values > high))
        return kept

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """``stat below min_value`` or ``stat above max_value``."""
        values = stat_values(stats[self.stat])[dropped]
        low = -np.inf if self.min_value is None else self.min_value
        return [f"{self.stat} below min_value" if v < low else f"{self.stat} above max_value" for v in values]
