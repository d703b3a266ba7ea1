"""Remove words that are too long or too short."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_tokens import TokenKeepingMapper
from bettersynth.ops._words import keep_words, strip_special


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveLongWordsMapper(TokenKeepingMapper):
    """Keep words whose length, as they are or without special characters at their ends, lies in a range.

    Runs of spaces, tabs and line feeds, and those at the ends, are reduced even where no word goes, as in Data-Juicer.
    Words with a special token stay (a deliberate difference).

    Args:
        min_len: fewest characters.
        max_len: most characters; None for no limit.
    """

    min_len: int = 1
    max_len: int | None = None

    def rewrite_around(self, text: str, tokens: re.Pattern[str]) -> str:
        """The text without words outside the range."""
        return keep_words(text, lambda word: self._keeps(word) or tokens.search(word) is not None)

    def _keeps(self, word: str) -> bool:
        return self._fits(len(word)) or self._fits(len(strip_special(word)))

    def _fits(self, length: int) -> bool:
        return length >= self.min_len and (self.max_len is None or length <= self.max_len)
