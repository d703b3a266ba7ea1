"""Keep the rows whose score lies in a band of the ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import STATS, Batch, Selector, Stats, Verdict, stat_values


@dataclass(frozen=True, kw_only=True, slots=True)
class BandSelector(Selector):
    """Rank all rows by a stat and cut both ends: the very top of a similarity ranking is often text-only pictures.

    Rows without a value stay. Ties are broken by data set order.

    Args:
        stat: stat to rank by, high is good.
        drop_top: share of rows cut at the top, 0 to 1.
        drop_bottom: share of rows cut at the bottom.
        select_num: keep at most so many of what is left, the best ones.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    keep_params: ClassVar[tuple[str, ...]] = ("drop_top", "drop_bottom", "select_num")

    stat: str = "image_text_similarity"
    drop_top: float = 0.0
    drop_bottom: float = 0.0
    select_num: int | None = None

    def needs(self) -> tuple[str, ...]:
        """The stat's column."""
        return (STATS + self.stat,)

    def check(self) -> None:
        """Shares that leave something."""
        if min(self.drop_top, self.drop_bottom) < 0 or self.drop_top + self.drop_bottom >= 1:
            raise ValueError("drop_top and drop_bottom must be shares that add up to less than 1")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The value."""
        return {"value": pa.array(stat_values(batch.column(STATS + self.stat)))}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Cut both ends of the ranking."""
        values = partials.column("value").to_numpy()
        known = np.flatnonzero(~np.isnan(values))
        ranked = known[np.argsort(-values[known], kind="stable")]
        top, bottom = int(self.drop_top * len(ranked)), int(self.drop_bottom * len(ranked))
        reasons = [""] * len(values)
        middle = ranked[top : len(ranked) - bottom]
        cut = len(middle) if self.select_num is None else self.select_num
        for rows, reason in (
            (ranked[:top], f"{self.stat} among the top"),
            (ranked[len(ranked) - bottom :], f"{self.stat} among the bottom"),
            (middle[cut:], f"{self.stat} below the best {self.select_num}"),
        ):
            for row in rows.tolist():
                reasons[row] = reason
        return Verdict(np.array([not reason for reason in reasons], np.int64), reasons)
