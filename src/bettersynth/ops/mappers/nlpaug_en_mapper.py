"""Make rows with typing, reading and word errors, as Data-Juicer does with nlpaug, but seeded."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from bettersynth.ops._text_augment import TextAugmenter, outside_tokens
from bettersynth.ops._text_errors import ERRORS


@dataclass(frozen=True, kw_only=True, slots=True)
class NlpaugEnMapper(TextAugmenter):
    """One new row per switched-on error (``aug_num`` of each), or ``aug_num`` rows with all of them one after another.

    Keys and order follow Data-Juicer: the original first, then the errors in the order below. About 30 % of the words
    (1 to 10 of them) change; for character errors, 30 % of the characters of such words. Unlike there a run can be
    repeated, special tokens stay, and misspellings follow rules instead of a word list. Without any switch there are no
    new rows, and the original stays only if it is kept.

    Args:
        sequential: apply all switched-on errors one after another.
        delete_random_word: leave words out.
        swap_random_word: exchange a word with the next one.
        spelling_error_word: common misspellings: a doubled or dropped letter, two letters exchanged, ei for ie.
        split_random_word: put a space into a word.
        keyboard_error_char: hit a neighbouring key.
        ocr_error_char: take a character for one that looks like it.
        delete_random_char: leave characters out.
        swap_random_char: exchange two neighbouring characters.
        insert_random_char: put in a letter.
    """

    sequential: bool = False
    delete_random_word: bool = False
    swap_random_word: bool = False
    spelling_error_word: bool = False
    split_random_word: bool = False
    keyboard_error_char: bool = False
    ocr_error_char: bool = False
    delete_random_char: bool = False
    swap_random_char: bool = False
    insert_random_char: bool = False

    def keeps(self, found: list[str]) -> bool:
        """As told, even where that leaves nothing of a row."""
        return self.keep_original_sample

    def variants(self, text: str, draw: random.Random, tokens: re.Pattern[str]) -> list[str]:
        """New texts; a short text may come back unchanged, as it does there."""
        chosen = [name for name in ERRORS if getattr(self, name)]
        rounds = ([chosen] if chosen else []) if self.sequential else [[name] for name in chosen]
        found = []
        for names in rounds:
            for _ in range(self.aug_num):
                new = text
                for name in names:
                    new = outside_tokens(new, tokens, lambda part, name=name: ERRORS[name](part, draw))  # type: ignore[misc]
                found.append(new)
        return found
