"""Keep the rows whose value of a field is one of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_values
from bettersynth.ops.base import IMAGES, RECORD, TEXT, Batch, Selector, Stats, Verdict
from bettersynth.ops.selectors.frequency_specified_field_selector import value_key
from bettersynth.ops.selectors.topk_specified_field_selector import check_field


@dataclass(frozen=True, kw_only=True, slots=True)
class TagsSpecifiedFieldSelector(Selector):
    """As in Data-Juicer: without a field, or with one row, everything stays.

    Args:
        field_key: path of the field, whose values are texts, numbers or nothing.
        target_tags: the values that stay.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    keep_params: ClassVar[tuple[str, ...]] = ("target_tags",)

    field_key: str = ""
    target_tags: tuple[str, ...] = ()

    def check(self) -> None:
        """A field without tags would drop everything."""
        if self.field_key and not self.target_tags:
            raise ValueError("target_tags needs at least one value")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """A text per value that is equal for equal values."""
        values, present = field_values(batch, self.field_key) if self.field_key else ([None] * batch.num_rows, [])
        return {
            "value": pa.array([value_key(value, self.field_key) for value in values], pa.string()),
            "has": pa.array(present or [False] * batch.num_rows, pa.bool_()),
        }

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Which values are wanted."""
        total = partials.num_rows
        if total <= 1 or not self.field_key:
            return Verdict(np.ones(total, np.int64), [""] * total)
        check_field(self.field_key, partials)
        targets = {value_key(tag, self.field_key) for tag in self.target_tags}
        copies = np.array([value in targets for value in partials.column("value").to_pylist()], np.int64)
        return Verdict(copies, ["" if n else f"{self.field_key} has none of the tags" for n in copies])
