"""Keep the rows whose values of a field lie between two ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import LEAST, field_values, to_number
from bettersynth.ops.base import IMAGES, RECORD, TEXT, Batch, Selector, Stats, Verdict
from bettersynth.ops.selectors.topk_specified_field_selector import check_field


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeSpecifiedFieldSelector(Selector):
    """The rows Data-Juicer chooses by ascending value, left in data set order (Data-Juicer returns them by rank).

    Of the rows in ascending order the first ``upper`` are taken and of these the first ``lower`` left out. Text is
    parsed as a number, lists are averaged, anything else is smallest. Without a field, or without a bound at each end,
    everything stays.

    Args:
        field_key: path of the field, e.g. ``__dj__stats__.perplexity``.
        lower_percentile: share of the rows below the range, 0 to 1.
        upper_percentile: share of the rows up to the end of the range.
        lower_rank: number of rows below the range; with both given the larger counts.
        upper_rank: number of rows up to the end of the range; with both given the smaller counts.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    keep_params: ClassVar[tuple[str, ...]] = ("lower_percentile", "upper_percentile", "lower_rank", "upper_rank")

    field_key: str = ""
    lower_percentile: float | None = None
    upper_percentile: float | None = None
    lower_rank: int | None = None
    upper_rank: int | None = None

    def check(self) -> None:
        """Percentiles are shares, ranks are positive."""
        for share in (self.lower_percentile, self.upper_percentile):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"percentiles must be between 0 and 1, not {share}")
        for rank in (self.lower_rank, self.upper_rank):
            if rank is not None and rank < 1:
                raise ValueError(f"ranks must be at least 1, not {rank}")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The value as a number."""
        values, present = field_values(batch, self.field_key) if self.field_key else ([None] * batch.num_rows, [])
        return {
            "number": pa.array([to_number(value) for value in values], pa.float64()),
            "has": pa.array(present or [False] * batch.num_rows, pa.bool_()),
        }

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Cut both ends of the ranking."""
        total = partials.num_rows
        has_bounds = (self.lower_percentile is not None or self.lower_rank is not None) and (
            self.upper_percentile is not None or self.upper_rank is not None
        )
        if total <= 1 or not self.field_key or not has_bounds:
            return Verdict(np.ones(total, np.int64), [""] * total)
        check_field(self.field_key, partials)
        lower = max(int((self.lower_percentile or 0) * total), self.lower_rank or 0)
        upper = total if self.upper_percentile is None else int(self.upper_percentile * total)
        upper = max(lower, min(upper, self.upper_rank or total))
        values = np.nan_to_num(partials.column("number").to_numpy(), nan=LEAST, posinf=np.inf, neginf=-np.inf)
        below = np.argsort(values, kind="stable")[:upper]
        # The upper part again from the largest down: among equal values at the lower end the earlier rows stay.
        chosen = below[np.argsort(-values[below], kind="stable")[: upper - lower]]
        copies = np.zeros(total, np.int64)
        copies[chosen] = 1
        return Verdict(copies, ["" if n else f"{self.field_key} outside the ranks" for n in copies])
