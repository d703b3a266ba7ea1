"""Drop texts with too many flagged words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bettersynth.ops._words import listed_share, read_word_lists, refuse_tokenization
from bettersynth.ops.base import RangeFilter, TextFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class FlaggedWordsFilter(TextFilter):
    """Share of words that are on a list; words are lower-cased and stripped of special characters.

    Args:
        flagged_words: the list itself (ours; short lists need no file).
        flagged_words_dir: folder of ``*flagged_words*.json`` files ``{language: [words]}``, as Data-Juicer uses.
        lang: language key in those files, or ``all``.
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
        use_words_aug: look up joins of neighbouring words too (for languages without spaces).
        words_aug_group_sizes: how many words are joined.
        words_aug_join_char: what stands between joined words.
        tokenization: accepted when false, as recipes write it; true is refused (it needs a tokenizer's own words).
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.flagged_words_ratio",)
    stat: ClassVar[str] = "flagged_words_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")

    flagged_words: tuple[str, ...] = ()
    flagged_words_dir: str | None = None
    lang: str = "en"
    min_ratio: float = 0.0
    max_ratio: float | None = 0.045
    use_words_aug: bool = False
    words_aug_group_sizes: tuple[int, ...] = (2,)
    words_aug_join_char: str = ""
    tokenization: bool = False

    def check(self) -> None:
        """A list is needed, and its files must hold the language."""
        refuse_tokenization(self.tokenization)
        read_word_lists("flagged_words", self.flagged_words, self.flagged_words_dir, self.lang)

    def value(self, text: str) -> float:
        """Share of flagged words; 0 for a text without words."""
        listed = read_word_lists("flagged_words", self.flagged_words, self.flagged_words_dir, self.lang)
        sizes = self.words_aug_group_sizes if self.use_words_aug else ()
        return listed_share(text, listed, sizes, self.words_aug_join_char)
