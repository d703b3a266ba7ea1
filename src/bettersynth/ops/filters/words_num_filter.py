"""Keep texts whose number of words lies in a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bettersynth.ops._arrow import array
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import codes_of
from bettersynth.ops._words import refuse_tokenization, word_spans
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class WordsNumFilter(RangeFilter):
    """Words between spaces, line feeds and tabs that hold more than special characters, as in Data-Juicer.

    Args:
        min_num: fewest words.
        max_num: most words; None for no limit.
        lang: accepted for Data-Juicer's recipes; without a tokenizer it changes nothing.
        tokenization: accepted when false, as recipes write it; true is refused (it needs a tokenizer's own words).
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.num_words",)
    stat: ClassVar[str] = "num_words"
    bounds: ClassVar[tuple[str, str]] = ("min_num", "max_num")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_num", "max_num")
    at_once: ClassVar[bool] = True

    lang: str = "en"
    min_num: int = 10
    max_num: int | None = None
    tokenization: bool = False

    def check(self) -> None:
        """Words come from white space."""
        RangeFilter.check(self)
        refuse_tokenization(self.tokenization)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``num_words``."""
        codes = codes_of(batch.column(TEXT))
        return {self.stat: array(np.bincount(word_spans(codes, lower=False).rows, minlength=len(codes)))}
