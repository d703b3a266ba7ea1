"""Shared pieces of operators that look at pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from bettersynth.ops.base import IMAGES, Mask, RangeFilter, Stats

AnyOrAll = Literal["any", "all"]


def passes(rows: Sequence[Sequence[bool]], any_or_all: AnyOrAll) -> Mask:
    """Which rows stay: any or all of their pictures pass; rows without pictures always stay (Data-Juicer)."""
    test = any if any_or_all == "any" else all
    return np.array([not row or test(row) for row in rows], dtype=bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFilter(RangeFilter):
    """A range filter with one value per picture of a row.

    Args:
        any_or_all: keep when any picture passes, or only when all do.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "any_or_all")

    any_or_all: AnyOrAll = "any"

    def keep(self, stats: Stats) -> Mask:
        """Any or all values of a row inside the range."""
        rows = stats[self.stat].to_pylist()
        return passes([self.inside(np.asarray(row, np.float64)).tolist() for row in rows], self.any_or_all)

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """Named after the first picture's value."""
        if self.reversed_range:
            return [f"{self.stat} inside {self.bounds[0]}..{self.bounds[1]}"] * len(dropped)
        rows = stats[self.stat].take(dropped).to_pylist()
        below, _ = self._outside(np.array([row[0] for row in rows], np.float64))
        low, high = self.bounds
        return [f"{self.stat} below {low}" if under else f"{self.stat} above {high}" for under in below]
