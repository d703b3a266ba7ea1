"""Keep the rows whose field has one of the values asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_of_every_row
from bettersynth.ops.base import IMAGES, RECORD, STATS, TEXT, Batch, Filter, Mask, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecifiedFieldFilter(Filter):
    """As in Data-Juicer: of a field that holds a list every entry must be among the values; an empty list passes.

    A row without the field is set aside (there its error drops it). The stat is the field's value as JSON.

    Args:
        field_key: dotted path of the field, e.g. ``meta.source`` or ``__dj__stats__.lang``.
        target_value: the values that stay; none at all keeps everything. ``1``, ``1.0`` and ``true`` are equal.
        reversed_range: keep the other rows.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    keep_params: ClassVar[tuple[str, ...]] = ("target_value", "reversed_range")

    field_key: str = ""
    target_value: tuple[str | int | float | bool | None, ...] = ()
    reversed_range: bool = False

    def check(self) -> None:
        """Without a field there is nothing to look at."""
        if not self.field_key:
            raise ValueError("field_key is needed: the path of the field to look at")

    def adds(self) -> tuple[str, ...]:
        """The field's value, under its own path."""
        return (STATS + self.field_key,)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """The value as JSON, so that a text of digits and a number stay apart."""
        values = field_of_every_row(batch, self.field_key)
        return {self.field_key: pa.array([orjson.dumps(value).decode() for value in values], pa.string())}

    def keep(self, stats: Stats) -> Mask:
        """Every value is among those asked for, or, reversed, one is not."""
        column = stats[self.field_key]
        if not self.target_value:
            return np.ones(len(column), bool)
        known: dict[str, bool] = {}
        for value in column.unique().to_pylist():
            known[value] = self._is_wanted(orjson.loads(value)) != self.reversed_range
        return np.array([known[value] for value in column.to_pylist()], bool)

    def _is_wanted(self, value: Any) -> bool:
        return all(entry in self.target_value for entry in (value if isinstance(value, list) else [value]))

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """One reason for all."""
        end = "one of the values" if self.reversed_range else "another value"
        return [f"{self.field_key} has {end}"] * len(dropped)
