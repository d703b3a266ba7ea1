"""Keep the rows with the largest, or smallest, values of a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import LEAST, field_values, to_number
from bettersynth.ops.base import IMAGES, RECORD, TEXT, Batch, Selector, Stats, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class TopkSpecifiedFieldSelector(Selector):
    """The rows Data-Juicer chooses, left in data set order (Data-Juicer returns them by rank).

    Values at a dotted path are made numbers (text is parsed, lists are averaged, anything else comes last); values of a
    top-level field are compared as they are, so they must all be numbers or all be texts. Ties go to the earlier row.
    Without a field, or with one row, everything stays.

    Args:
        field_key: path of the field, e.g. ``__dj__stats__.image_aesthetics_scores`` or ``meta.likes``.
        top_ratio: share of the rows.
        topk: number of rows; with both given the smaller result counts.
        reverse: the largest values, else the smallest.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES, RECORD)
    keep_params: ClassVar[tuple[str, ...]] = ("top_ratio", "topk", "reverse")

    field_key: str = ""
    top_ratio: float | None = None
    topk: int | None = None
    reverse: bool = True

    def check(self) -> None:
        """A share between 0 and 1, and a number of rows."""
        check_counts(self.top_ratio, self.topk)

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The value as a number or as a text."""
        values, present = field_values(batch, self.field_key) if self.field_key else ([None] * batch.num_rows, [])
        is_plain = "." not in self.field_key
        numbers, texts = [], []
        for value in values:
            as_text = is_plain and isinstance(value, str)
            if is_plain and value is not None and not isinstance(value, str | int | float):
                kind = type(value).__name__
                raise DataError(t("field '{key}' cannot be ranked, got {got}", key=self.field_key, got=kind))
            numbers.append(None if as_text else to_number(value))
            texts.append(value if as_text else None)
        return {
            "number": pa.array(numbers, pa.float64()),
            "words": pa.array(texts, pa.string()),
            "has": pa.array(present or [False] * batch.num_rows, pa.bool_()),
        }

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """The first rows of the ranking."""
        total = partials.num_rows
        count = wanted(self.top_ratio, self.topk, total)
        if total <= 1 or not self.field_key or count is None:
            return Verdict(np.ones(total, np.int64), [""] * total)
        check_field(self.field_key, partials)
        words = partials.column("words").to_pylist()
        if any(word is not None for word in words):
            if None in words:
                raise DataError(
                    t("field '{key}' holds texts and other values, which cannot be ranked", key=self.field_key)
                )
            # Negated ranks keep the sort stable in both directions.
            _, values = np.unique(np.array(words), return_inverse=True)
        else:
            worst = LEAST if self.reverse else -LEAST
            values = np.nan_to_num(partials.column("number").to_numpy(), nan=worst, posinf=np.inf, neginf=-np.inf)
        order = np.argsort(-values if self.reverse else values, kind="stable")
        copies = np.zeros(total, np.int64)
        copies[order[:count]] = 1
        end = "largest" if self.reverse else "smallest"
        return Verdict(copies, ["" if n else f"{self.field_key} not among the {end}" for n in copies])


def wanted(ratio: float | None, number: int | None, total: int) -> int | None:
    """How many of ``total``: the smaller of the share and the number, None when neither is asked for."""
    found = [int(ratio * total)] if ratio else []
    found += [number] if number else []
    return min(found) if found else None


def check_counts(ratio: float | None, number: int | None) -> None:
    """Raise ValueError unless the share lies between 0 and 1 and the number is at least 1."""
    if ratio is not None and not 0 <= ratio <= 1:
        raise ValueError(f"top_ratio must be between 0 and 1, not {ratio}")
    if number is not None and number < 1:
        raise ValueError(f"topk must be at least 1, not {number}")


def check_field(key: str, partials: pa.Table) -> None:
    """Raise DataError when no row has the field."""
    if not any(partials.column("has").to_pylist()):
        raise DataError(t("no row has the field '{key}'", key=key), hint=t("check the spelling of field_key"))
