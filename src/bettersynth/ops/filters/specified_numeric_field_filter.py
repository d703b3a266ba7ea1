"""Keep the rows whose field is a number in a range."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_of_every_row
from bettersynth.ops.base import IMAGES, RECORD, STATS, TEXT, Batch, Mask, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecifiedNumericFieldFilter(RangeFilter):
    """As in Data-Juicer, whose oddities stay: text is parsed as a number, ``0`` counts as no number, and rows without
    a number go, also when the range is reversed. A row without the field is set aside (there its error drops it).

    Args:
        field_key: dotted path of the field, e.g. ``meta.score``.
        min_value: smallest value.
        max_value: largest value.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    bounds: ClassVar[tuple[str, str]] = ("min_value", "max_value")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_value", "max_value")

    field_key: str = ""
    min_value: float | None = -float(sys.maxsize)
    max_value: float | None = float(sys.maxsize)

    @property
    def stat(self) -> str:  # type: ignore[override]
        """The field's own path: two steps of this kind look at different fields."""
        return self.field_key

    def check(self) -> None:
        """A field, and bounds in order."""
        if not self.field_key:
            raise ValueError("field_key is needed: the path of the field to look at")
        RangeFilter.check(self)

    def adds(self) -> tuple[str, ...]:
        """The number, and the mark when rows are only marked."""
        mark = (f"{STATS}{self.field_key}_failed",) if self.mark_only else ()
        return (STATS + self.field_key, *mark)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """The numbers; null for what is none."""
        values = [_number(value, self.field_key) for value in field_of_every_row(batch, self.field_key)]
        return {self.field_key: pa.array(values, pa.float64())}

    def keep(self, stats: Stats) -> Mask:
        """A number inside the range, or outside when reversed."""
        column = stats[self.field_key]
        values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        kept: Mask = self.inside(values)
        # No number, read from the text "nan", is in no range; reversed, it is outside of every range.
        kept[np.isnan(values)] = (self.limits() == (None, None)) != self.reversed_range
        kept &= ~np.asarray(column.is_null())
        return kept

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """Which side of the range, or that there is no number."""
        missing = np.asarray(stats[self.field_key].is_null())[dropped]
        found = RangeFilter.reasons(self, stats, dropped)
        return [
            f"{self.field_key} is 0 or no number" if gone else reason
            for gone, reason in zip(missing, found, strict=True)
        ]


def _number(value: Any, field: str) -> float | None:
    """A value as a number; None for nothing, zero, an empty list or text that cannot be parsed.

    Raises:
        DataError: it holds other values.
    """
    if not value:
        return None
    if isinstance(value, list | dict):
        raise DataError(t("field '{key}' must hold a number or a text, got {got}", key=field, got=type(value).__name__))
    try:
        return float(value)
    except ValueError:
        return None
