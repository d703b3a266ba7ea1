"""Drop texts that repeat runs of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bettersynth.ops._arrow import array, take
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import codes_of, gram_hashes, rows_that_repeat
from bettersynth.ops._words import (
    HARD_TO_LOWER,
    compiled,
    odd_rows,
    refuse_tokenization,
    repeated_share,
    repetition,
    word_marks,
    word_spans,
)
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class WordRepetitionFilter(RangeFilter):
    """Share of word n-grams that occur more than once, words lower-cased and stripped of special characters.

    Args:
        rep_len: n, in words.
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
        lang: accepted for Data-Juicer's recipes; without a tokenizer it changes nothing.
        tokenization: accepted when false, as recipes write it; true is refused (it needs a tokenizer's own words).
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.word_rep_ratio",)
    stat: ClassVar[str] = "word_rep_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")
    at_once: ClassVar[bool] = True

    lang: str = "en"
    rep_len: int = 10
    min_ratio: float = 0.0
    max_ratio: float | None = 0.5
    tokenization: bool = False

    def check(self) -> None:
        """n must be positive."""
        refuse_tokenization(self.tokenization)
        if self.rep_len < 1:
            raise ValueError("rep_len must be at least 1")

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``word_rep_ratio``: only texts in which the hash of an n-gram occurs twice are looked at closely."""
        codes = codes_of(batch.column(TEXT))
        spans = word_spans(codes, lower=True)
        library = compiled(len(codes))
        if library is not None:
            ratios = repetition(library, codes, spans, self.rep_len)
            return self._with(ratios, odd_rows(codes, HARD_TO_LOWER), batch)
        # Runs of words that reach into the next text may add a text to look at, which does no harm.
        grams = gram_hashes(word_marks(codes, spans), self.rep_len)
        rows = rows_that_repeat(spans.rows[: len(grams)], grams)
        return self._with(np.zeros(len(codes)), np.union1d(rows, odd_rows(codes)), batch)

    def _with(self, ratios: npt.NDArray[np.float64], rows: npt.NDArray[np.int64], batch: Batch) -> Stats:
        """The ratios, those of some texts computed word by word."""
        if len(rows):
            ratios[rows] = [self.value(text) for text in take(batch.column(TEXT), rows).to_pylist()]
        return {self.stat: array(ratios)}

    def value(self, text: str) -> float:
        """Share of repeated n-grams; 0 for a text of fewer than n words."""
        return repeated_share(text, self.rep_len)
