"""Keep the rows whose value of a field is among the most, or least, frequent ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_values
from bettersynth.ops.base import IMAGES, RECORD, TEXT, Batch, Selector, Stats, Verdict
from bettersynth.ops.selectors.topk_specified_field_selector import check_counts, check_field, wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class FrequencySpecifiedFieldSelector(Selector):
    """The rows Data-Juicer chooses, left in data set order (Data-Juicer returns them group by group).

    Rows are grouped by value (a text, a number or nothing); whole groups are kept, among equally large ones the one
    that appears first. Without a field, or with one row, everything stays.

    Args:
        field_key: path of the field, e.g. ``meta.source``.
        top_ratio: share of the different values.
        topk: number of different values; with both given the smaller result counts.
        reverse: the most frequent values, else the rarest.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    keep_params: ClassVar[tuple[str, ...]] = ("top_ratio", "topk", "reverse")

    field_key: str = ""
    top_ratio: float | None = None
    topk: int | None = None
    reverse: bool = True

    def check(self) -> None:
        """A share between 0 and 1, and a number of groups."""
        check_counts(self.top_ratio, self.topk)

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """A text per value that is equal for equal values."""
        values, present = field_values(batch, self.field_key) if self.field_key else ([None] * batch.num_rows, [])
        return {
            "value": pa.array([value_key(value, self.field_key) for value in values], pa.string()),
            "has": pa.array(present or [False] * batch.num_rows, pa.bool_()),
        }

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Count the groups and keep the first ones."""
        total = partials.num_rows
        if total <= 1 or not self.field_key or (not self.top_ratio and not self.topk):
            return Verdict(np.ones(total, np.int64), [""] * total)
        check_field(self.field_key, partials)
        groups: dict[str, int] = {}
        labels = np.array([groups.setdefault(key, len(groups)) for key in partials.column("value").to_pylist()])
        sizes = np.bincount(labels)
        order = np.argsort(-sizes if self.reverse else sizes, kind="stable")
        chosen = order[: wanted(self.top_ratio, self.topk, len(groups))]
        copies = np.isin(labels, chosen).astype(np.int64)
        word = "frequent" if self.reverse else "rare"
        facts = {"values": len(groups), "kept values": len(chosen)}
        return Verdict(copies, ["" if n else f"{self.field_key} not {word} enough" for n in copies], {}, facts)


def value_key(value: Any, field: str) -> str:
    """A text that is equal for equal values: 1, 1.0 and true are one number, "1" is another value, nothing a third.

    Raises:
        DataError: the value is a list or an object.
    """
    if value is None:
        return "n"
    if isinstance(value, str):
        return "s" + value
    if isinstance(value, int | float):
        return f"d{int(value)}" if float(value).is_integer() else f"d{value!r}"
    kind = type(value).__name__
    raise DataError(t("field '{key}' must be a text, a number or nothing, got {got}", key=field, got=kind))
