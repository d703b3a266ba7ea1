"""Keep texts with few special characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bettersynth.ops._arrow import array
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import codes_of
from bettersynth.ops._words import special_table
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialCharactersFilter(RangeFilter):
    """Share of characters that are punctuation, digits, white space, symbols or emoji, by Data-Juicer's table.

    Args:
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.special_char_ratio",)
    stat: ClassVar[str] = "special_char_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")
    at_once: ClassVar[bool] = True

    min_ratio: float = 0.0
    max_ratio: float | None = 0.25

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``special_char_ratio``: 0 for an empty text."""
        codes = codes_of(batch.column(TEXT))
        return {self.stat: array(codes.sums(special_table().look_up(codes)) / np.maximum(codes.lengths, 1))}
