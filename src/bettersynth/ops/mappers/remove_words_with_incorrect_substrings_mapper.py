"""Remove words that contain pieces of web addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_tokens import TokenKeepingMapper
from bettersynth.ops._words import keep_words, refuse_tokenization, strip_special

_PIECES = ("http", "www", ".com", "href", "//")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveWordsWithIncorrectSubstringsMapper(TokenKeepingMapper):
    """Drop words that, without special characters at their ends, contain one of the substrings, as in Data-Juicer.

    Runs of spaces, tabs and line feeds, and those at the ends, are reduced even where no word goes. Words with a
    special token stay (a deliberate difference).

    Args:
        substrings: what a word may not contain; pieces of links when not given.
        lang: accepted for Data-Juicer's recipes; without a tokenizer it changes nothing.
        tokenization: accepted when false, as recipes write it; true is refused (it needs a tokenizer's own words).
    """

    substrings: tuple[str, ...] | None = None
    lang: str = "en"
    tokenization: bool = False

    def check(self) -> None:
        """Words come from white space."""
        refuse_tokenization(self.tokenization)

    def rewrite_around(self, text: str, tokens: re.Pattern[str]) -> str:
        """The text without such words."""
        pieces = _PIECES if self.substrings is None else self.substrings

        def keep(word: str) -> bool:
            if not any(piece in word for piece in pieces):  # then the stripped word holds none either
                return True
            bare = strip_special(word)
            return not any(piece in bare for piece in pieces) or tokens.search(word) is not None

        return keep_words(text, keep)
