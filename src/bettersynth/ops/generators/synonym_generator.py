"""Make rows in which words are replaced by synonyms."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bettersynth.ops._text_augment import TextAugmenter, mend_articles, with_case_of

_OWN_LIST = Path(__file__).parents[1] / "synonyms_en.txt"
_KEPT = re.compile(r"\"[^\"]*\"|\b[A-Z][A-Z0-9]+\b|\b(?:says|reads|reading|labeled|named)\s+\S+")


@lru_cache(maxsize=8)
def read_synonyms(path: str | None) -> tuple[dict[str, tuple[str, ...]], re.Pattern[str]]:
    """(other words of each word, pattern that finds them) of a list: one group a line, commas between words.

    Raises:
        ValueError: the file cannot be read, or holds no group of two words.
    """
    try:
        text = (Path(path).expanduser() if path else _OWN_LIST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the synonyms: {error}") from error
    others: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        group = [] if line.startswith("#") else [word.strip().lower() for word in line.split(",") if word.strip()]
        for word in group:
            others[word] = (*others.get(word, ()), *(other for other in group if other != word))
    others = {word: found for word, found in others.items() if found}
    if not others:
        raise ValueError(f"no synonyms in {path}; write groups of words, one a line, with commas between them")
    longest_first = sorted(others, key=lambda word: (-len(word), word))
    return others, re.compile(r"(?<![\w'-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w'-])", re.I)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynonymGenerator(TextAugmenter):
    """Each word of the list is replaced with a probability, by one of its group; articles are mended (ours).

    Words in capitals or quotes, and what a sign says, stay: they are what the picture shows.

    Args:
        synonyms_file: text file with one group of interchangeable words a line, commas between them; a small list of
            English caption words of ours when not given.
        replace_ratio: probability of each replacement, above 0, at most 1.
    """

    synonyms_file: str | None = None
    replace_ratio: float = 0.5

    def check(self) -> None:
        """The list must be there, and the probability one."""
        TextAugmenter.check(self)
        if not 0 < self.replace_ratio <= 1:
            raise ValueError("replace_ratio must be above 0 and at most 1")
        read_synonyms(self.synonyms_file)

    def rewrite(self, part: str, draw: random.Random) -> str:
        """Some words replaced."""
        others, pattern = read_synonyms(self.synonyms_file)
        kept = [match.span() for match in _KEPT.finditer(part)]

        def replace(match: re.Match[str]) -> str:
            word = match.group()
            inside = any(start < match.end() and match.start() < stop for start, stop in kept)
            if inside or draw.random() >= self.replace_ratio:
                return word
            return with_case_of(draw.choice(others[word.lower()]), word)

        new = pattern.sub(replace, part)
        return mend_articles(new) if new != part else part
