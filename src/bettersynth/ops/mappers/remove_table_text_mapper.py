"""Remove tables that were copied as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper


@lru_cache(maxsize=32)
def _table(columns: int) -> re.Pattern[str]:
    return re.compile(rf"(?<=\n)(?:\S+?(?:[ |\t]\S+?){{{columns - 1}}}\n+){{2,}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveTableTextMapper(SelectiveTextMapper):
    """Delete two or more lines in a row with equally many cells, one space, tab or bar between them, as in Data-Juicer.

    A table on the first line of a text is not seen.

    Args:
        min_col: fewest columns, 2 to 20.
        max_col: most columns, 2 to 20.
    """

    min_col: int = 2
    max_col: int = 20

    def check(self) -> None:
        """Both numbers lie between 2 and 20."""
        if not 2 <= self.min_col <= self.max_col <= 20:
            raise ValueError("2 <= min_col <= max_col <= 20 is needed")

    def candidates(self, codes: Codes) -> I64:
        """Texts of three lines at least."""
        feeds = codes.sums(codes.narrow == ord("\n"))
        rows: I64 = (feeds >= 3).nonzero()[0]
        return rows

    def rewrite(self, text: str) -> str:
        """The text without tables, those of few columns removed first."""
        for columns in range(self.min_col, self.max_col + 1):
            text = _table(columns).sub("", text)
        return text
