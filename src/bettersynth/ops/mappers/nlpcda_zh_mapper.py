"""Make rows with small changes to Chinese texts, as Data-Juicer does with nlpcda, but seeded."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from bettersynth.ops._text_augment import TextAugmenter, outside_tokens
from bettersynth.ops._text_changes_zh import CHANGES


@dataclass(frozen=True, kw_only=True, slots=True)
class NlpcdaZhMapper(TextAugmenter):
    """Up to ``aug_num`` new rows per switched-on change, or ``aug_num`` rows with all of them one after another.

    Keys and order follow Data-Juicer: the original first, then the changes in the order below; a change that finds
    nothing to do makes no row. About 5 % of the characters or words change, at least one. Unlike there a run can be
    repeated, special tokens stay, and the words come from a small list of our own for captions instead of nlpcda's.
    Without any switch there are no new rows, and the original stays only if it is kept.

    Args:
        sequential: apply all switched-on changes one after another.
        replace_similar_word: another word of the same meaning.
        replace_homophone_char: another character that sounds alike.
        delete_random_char: leave characters out.
        swap_random_char: exchange two neighbouring characters.
        replace_equivalent_num: write digits as Chinese numerals.
    """

    sequential: bool = False
    replace_similar_word: bool = False
    replace_homophone_char: bool = False
    delete_random_char: bool = False
    swap_random_char: bool = False
    replace_equivalent_num: bool = False

    def keeps(self, found: list[str]) -> bool:
        """As told, even where that leaves nothing of a row."""
        return self.keep_original_sample

    def variants(self, text: str, draw: random.Random, tokens: re.Pattern[str]) -> list[str]:
        """New texts, different from the text and from each other."""
        chosen = [name for name in CHANGES if getattr(self, name)]
        rounds = ([chosen] if chosen else []) if self.sequential else [[name] for name in chosen]
        found: list[str] = []
        for names in rounds:
            fresh: list[str] = []
            for _ in range(4 * self.aug_num):  # a draw may give the same text again
                new = text
                for name in names:
                    new = outside_tokens(new, tokens, lambda part, name=name: CHANGES[name](part, draw))  # type: ignore[misc]
                if new != text and new not in (*found, *fresh):
                    fresh.append(new)
                if len(fresh) == self.aug_num:
                    break
            found += fresh
        return found
