"""Keep texts with enough letters and digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bettersynth.ops.base import RangeFilter, TextFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class AlphanumericFilter(TextFilter):
    """Share of characters that are letters or digits of any script (``str.isalnum``).

    Args:
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share; None for no limit.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.alnum_ratio",)
    stat: ClassVar[str] = "alnum_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")

    min_ratio: float = 0.25
    max_ratio: float | None = None

    def value(self, text: str) -> float:
        """Share of alphanumeric characters; 0 for an empty text."""
        return sum(map(str.isalnum, text)) / len(text) if text else 0.0
