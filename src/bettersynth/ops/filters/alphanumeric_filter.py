"""Keep texts with enough letters and digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bettersynth.ops._arrow import array
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import CharTable, codes_of
from bettersynth.ops._words import refuse_tokenization
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats

_ALNUM = CharTable(str.isalnum)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlphanumericFilter(RangeFilter):
    """Share of characters that are letters or digits of any script (``str.isalnum``).

    Args:
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share; None for no limit.
        tokenization: accepted when false, as recipes write it; true is refused (it needs a tokenizer's own words).
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.alnum_ratio",)
    stat: ClassVar[str] = "alnum_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")
    at_once: ClassVar[bool] = True

    min_ratio: float = 0.25
    max_ratio: float | None = None
    tokenization: bool = False

    def check(self) -> None:
        """Words come from white space."""
        RangeFilter.check(self)
        refuse_tokenization(self.tokenization)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``alnum_ratio``: 0 for an empty text."""
        codes = codes_of(batch.column(TEXT))
        return {self.stat: array(codes.sums(_ALNUM.look_up(codes)) / np.maximum(codes.lengths, 1))}
