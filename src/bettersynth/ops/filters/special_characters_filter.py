"""Keep texts with few special characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bettersynth.ops._words import num_special
from bettersynth.ops.base import RangeFilter, TextFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialCharactersFilter(TextFilter):
    """Share of characters that are punctuation, digits, white space, symbols or emoji, by Data-Juicer's table.

    Args:
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.special_char_ratio",)
    stat: ClassVar[str] = "special_char_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")

    min_ratio: float = 0.0
    max_ratio: float | None = 0.25

    def value(self, text: str) -> float:
        """Share of special characters; 0 for an empty text."""
        return num_special(text) / len(text) if text else 0.0
