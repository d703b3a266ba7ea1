"""Keep texts whose number of characters lies in a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bettersynth.ops._arrow import call
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLengthFilter(RangeFilter):
    """Length in characters (code points), special tokens included, as in Data-Juicer.

    Args:
        min_len: fewest characters.
        max_len: most characters; None for no limit.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.text_len",)
    stat: ClassVar[str] = "text_len"
    bounds: ClassVar[tuple[str, str]] = ("min_len", "max_len")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_len", "max_len")

    min_len: int = 10
    max_len: int | None = None

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``text_len``."""
        lengths: Any = call("utf8_length", batch.column(TEXT))
        return {self.stat: lengths}
