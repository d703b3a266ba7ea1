"""Drop texts with too many flagged words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._words import refined_words
from bettersynth.ops.base import RangeFilter, TextFilter


@lru_cache(maxsize=8)
def _word_list(words: tuple[str, ...], folder: str | None, lang: str) -> frozenset[str]:
    found = {word.lower() for word in words}
    if folder is not None:
        for path in sorted(Path(folder).glob("*flagged_words*.json")):
            lists = json.loads(path.read_text(encoding="utf-8"))
            chosen = lists.values() if lang == "all" and "all" not in lists else [lists[lang]]
            found.update(word for part in chosen for word in part)
    return frozenset(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlaggedWordsFilter(TextFilter):
    """Share of words that are on a list; words are lower-cased and stripped of special characters.

    Args:
        flagged_words: the list itself (ours; short lists need no file).
        flagged_words_dir: folder of ``*flagged_words*.json`` files ``{language: [words]}``, as Data-Juicer uses.
        lang: language key in those files, or ``all``.
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
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

    def check(self) -> None:
        """A list is needed, and its files must hold the language."""
        if not self.flagged_words and self.flagged_words_dir is None:
            raise ValueError("give flagged_words: [...] or flagged_words_dir: FOLDER")
        try:
            words = _word_list(self.flagged_words, self.flagged_words_dir, self.lang)
        except (OSError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"cannot read the word lists: {error!r}") from error
        if not words:
            raise ValueError(f"no flagged word found in {self.flagged_words_dir}")

    def value(self, text: str) -> float:
        """Share of flagged words, at most 1; 0 for a text without words."""
        listed = _word_list(self.flagged_words, self.flagged_words_dir, self.lang)
        found = refined_words(text, lower=True)
        return min(1.0, sum(word in listed for word in found) / len(found)) if found else 0.0
