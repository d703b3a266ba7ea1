"""Keep texts whose lines have a certain length on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import codes_of
from bettersynth.ops._text_lines import line_spans
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageLineLengthFilter(RangeFilter):
    """Characters, line breaks included, per line; all Unicode line boundaries count, as in Data-Juicer.

    Args:
        min_len: fewest characters.
        max_len: most characters; None for no limit.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.avg_line_length",)
    stat: ClassVar[str] = "avg_line_length"
    bounds: ClassVar[tuple[str, str]] = ("min_len", "max_len")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_len", "max_len")
    at_once: ClassVar[bool] = True

    min_len: float = 10
    max_len: float | None = None

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``avg_line_length``: 0 for an empty text."""
        codes = codes_of(batch.column(TEXT))
        rows, _ = line_spans(codes)
        return {self.stat: pa.array(codes.lengths / np.maximum(1, np.bincount(rows, minlength=len(codes))))}
