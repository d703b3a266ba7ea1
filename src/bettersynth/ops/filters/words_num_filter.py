"""Keep texts whose number of words lies in a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bettersynth.ops._words import refined_words
from bettersynth.ops.base import RangeFilter, TextFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class WordsNumFilter(TextFilter):
    """Words between spaces, line feeds and tabs that hold more than special characters, as in Data-Juicer.

    Args:
        min_num: fewest words.
        max_num: most words; None for no limit.
        lang: accepted for Data-Juicer's recipes; without a tokenizer it changes nothing.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.num_words",)
    stat: ClassVar[str] = "num_words"
    bounds: ClassVar[tuple[str, str]] = ("min_num", "max_num")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_num", "max_num")

    lang: str = "en"
    min_num: int = 10
    max_num: int | None = None

    def value(self, text: str) -> float:
        """Number of words."""
        return len(refined_words(text, lower=False))
