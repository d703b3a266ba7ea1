"""Drop texts that repeat runs of characters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

from bettersynth.ops.base import RangeFilter, TextFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterRepetitionFilter(TextFilter):
    """Share of the most frequent character n-grams among all, as in Data-Juicer (after the ROOTS corpus pipeline).

    With D distinct n-grams, S of them occurring once, the k = min(floor(sqrt(D)), D - S) largest counts are summed.

    Args:
        rep_len: n, in characters.
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.char_rep_ratio",)
    stat: ClassVar[str] = "char_rep_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")

    rep_len: int = 10
    min_ratio: float = 0.0
    max_ratio: float | None = 0.5

    def check(self) -> None:
        """n must be positive."""
        if self.rep_len < 1:
            raise ValueError("rep_len must be at least 1")

    def value(self, text: str) -> float:
        """Share of repeated n-grams; 0 for a text shorter than n."""
        n = self.rep_len
        total = len(text) - n + 1
        if total < 1:
            return 0.0
        grams = [text[i : i + n] for i in range(total)]
        distinct = len(set(grams))
        if distinct == total:
            return 0.0  # k is 0 then: D - S = 0
        counts = sorted(Counter(grams).values(), reverse=True)
        k = min(isqrt(distinct), distinct - counts.count(1))
        return sum(counts[:k]) / total
