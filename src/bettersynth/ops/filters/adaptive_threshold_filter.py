"""Drop rows that stand apart in a stat, by a threshold fitted to the data set itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import STATS, Batch, GlobalOperator, Stats, Verdict, otsu, stat_values

_MEAN_TO_SIGMA = 1.2533
_MAD_TO_SIGMA = 1.4826  # makes the median absolute deviation of a normal sample estimate its standard deviation


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveThresholdFilter(GlobalOperator):
    """Bounds that follow the distribution of a stat that an earlier step computed (ours). Rows without a value stay.

    The fitted bounds are part of the result's facts, so that a fixed recipe can be made of them.

    Args:
        stat: its name; lists with one value per picture are averaged.
        method: ``mad`` bounds the distance from the median in robust standard deviations; ``percentile`` cuts shares of
            rows; ``iqr`` uses Tukey's fences; ``otsu`` splits the values in two groups and drops one.
        side: which end is dropped.
        factor: for ``mad`` standard deviations (3.5 is usual), for ``iqr`` quartile distances (1.5 is usual).
        share: for ``percentile``, the share of rows dropped at each end, 0 to 0.5.
        max_drop: never drop more than this share of the rows at one end; the bound moves outwards then.
        log: fit logarithms, for lengths and sizes; only for values above 0.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    keep_params: ClassVar[tuple[str, ...]] = ("method", "side", "factor", "share", "max_drop", "log")

    stat: str
    method: Literal["mad", "percentile", "iqr", "otsu"] = "mad"
    side: Literal["low", "high", "both"] = "both"
    factor: float = 3.5
    share: float = 0.05
    max_drop: float = 0.5
    log: bool = False

    def check(self) -> None:
        """Shares are shares, and Otsu drops one side."""
        if not 0 <= self.share <= 0.5 or not 0 < self.max_drop <= 1:
            raise ValueError("share must lie between 0 and 0.5, max_drop between 0 and 1")
        if self.factor <= 0:
            raise ValueError("factor must be above 0")
        if self.method == "otsu" and self.side == "both":
            raise ValueError("method otsu drops one group: say side: low or side: high")

    def needs(self) -> tuple[str, ...]:
        """The stat's column."""
        return (STATS + self.stat,)

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The value."""
        return {"value": pa.array(stat_values(batch.column(STATS + self.stat)))}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Fit both bounds, then drop what lies outside."""
        values = partials.column("value").to_numpy()
        low, high = self.bounds(values[~np.isnan(values)])
        reasons = [""] * len(values)
        for row in np.flatnonzero(values < low):
            reasons[row] = f"{self.stat} below the fitted bound"
        for row in np.flatnonzero(values > high):
            reasons[row] = f"{self.stat} above the fitted bound"
        copies = np.array([not reason for reason in reasons], np.int64)
        facts = {f"fitted {name}": value for name, value in (("low", low), ("high", high)) if np.isfinite(value)}
        return Verdict(copies, reasons, {}, facts)

    def bounds(self, values: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Lower and upper bound, both inclusive; infinite where nothing is dropped."""
        if len(values) < 2 or (self.log and (values <= 0).any()):
            return -np.inf, np.inf
        known = np.log(values) if self.log else values
        low, high = self._fit(known)
        # Observed values as bounds, so that the cap on dropped rows holds exactly.
        ordered = np.sort(known)
        cap = min(int(self.max_drop * len(ordered)), len(ordered) - 1)
        low, high = min(low, float(ordered[cap])), max(high, float(ordered[-1 - cap]))
        low, high = (low if self.side != "high" else -np.inf), (high if self.side != "low" else np.inf)
        if self.log:
            # exp(log(x)) may miss x by a bit: a hair of room keeps the value on the bound.
            low, high = float(np.exp(low)) * (1 - 1e-12), float(np.exp(high)) * (1 + 1e-12)
        return low, high

    def _fit(self, values: npt.NDArray[np.float64]) -> tuple[float, float]:
        if self.method == "percentile":
            return float(np.quantile(values, self.share)), float(np.quantile(values, 1 - self.share))
        if self.method == "otsu":
            split = otsu(values)
            return split, split
        if self.method == "iqr":
            first, third = (float(np.quantile(values, share)) for share in (0.25, 0.75))
            return first - self.factor * (third - first), third + self.factor * (third - first)
        middle = float(np.median(values))
        sigma = _MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))
        # More than half of the values are equal: the mean deviation takes over (Iglewicz and Hoaglin, 1993).
        reach = self.factor * (sigma or _MEAN_TO_SIGMA * float(np.mean(np.abs(values - middle))))
        return middle - reach, middle + reach
