"""Errors people and machines make when they write English: on words, and on the characters of words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_SHARE, _MOST = 0.3, 10  # nlpaug's defaults: share of words or characters, and the most of them
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_LOOK_ALIKE = {
    "0": "oO",
    "o": "0",
    "O": "0",
    "1": "lI",
    "l": "1I",
    "I": "l1",
    "5": "S",
    "S": "5",
    "8": "B",
    "B": "8",
    "2": "Z",
    "Z": "2",
    "6": "b",
    "b": "6",
    "9": "gq",
    "g": "9q",
    "q": "9g",
    "c": "e",
    "e": "c",
    "u": "v",
    "v": "u",
    "n": "h",
    "h": "n",
    "i": "j",
    "j": "i",
    "D": "O",
    "Q": "O",
    "C": "G",
    "G": "C",
    "t": "f",
    "f": "t",
}


def _neighbours() -> dict[str, str]:
    keys: dict[str, str] = {}
    for y, row in enumerate(_ROWS):
        for x, key in enumerate(row):
            near = [row[i] for i in (x - 1, x + 1) if 0 <= i < len(row)]
            near += [_ROWS[j][x] for j in (y - 1, y + 1) if 0 <= j < len(_ROWS) and x < len(_ROWS[j])]
            keys[key] = "".join(near)
    return keys


_NEAR_KEYS = _neighbours()


def _how_many(total: int) -> int:
    return min(total, _MOST, max(1, round(_SHARE * total)))


def _on_words(text: str, draw: random.Random, fits: Callable[[str], bool], change: Callable[[str], str]) -> str:
    """A drawn share of the fitting words changed, the spaces between words kept."""
    parts = re.split(r"(\s+)", text)
    places = [place for place in range(0, len(parts), 2) if fits(parts[place])]
    if places:
        for place in draw.sample(places, _how_many(len(places))):
            parts[place] = change(parts[place])
    return "".join(parts)


def delete_word(text: str, draw: random.Random) -> str:
    """Words left out; a text of one word stays."""
    words = text.split(" ")
    if len(words) < 2:
        return text
    gone = set(draw.sample(range(len(words)), min(_how_many(len(words)), len(words) - 1)))
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def swap_word(text: str, draw: random.Random) -> str:
    """Words exchanged with the one after them."""
    words = text.split(" ")
    if len(words) < 2:
        return text
    for _ in range(_how_many(len(words))):
        place = draw.randrange(len(words) - 1)
        words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def misspell_word(text: str, draw: random.Random) -> str:
    """Words misspelt as people do."""

    def change(word: str) -> str:
        place = draw.randrange(1, len(word) - 1)
        ways = [
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
            word[:place] + word[place + 1] + word[place] + word[place + 2 :],
        ]
        if "ie" in word or "ei" in word:
            ways.append(re.sub("ie|ei", lambda match: match.group()[::-1], word))
        return draw.choice(ways)

    return _on_words(text, draw, lambda word: len(word) > 3 and word.isalpha(), change)


def split_word(text: str, draw: random.Random) -> str:
    """A space put into words of four letters and more."""

    def change(word: str) -> str:
        place = draw.randrange(1, len(word))
        return f"{word[:place]} {word[place:]}"

    return _on_words(text, draw, lambda word: len(word) > 3, change)


def _on_characters(
    text: str, draw: random.Random, fits: Callable[[str], bool], change: Callable[[list[str], int], None]
) -> str:
    """In a drawn share of words, a drawn share of the fitting characters changed in place, last ones first."""

    def in_word(word: str) -> str:
        characters = list(word)
        places = [place for place, character in enumerate(characters) if fits(character)]
        for place in sorted(draw.sample(places, _how_many(len(places))), reverse=True):
            change(characters, place)
        return "".join(characters)

    return _on_words(text, draw, lambda word: len(word) > 1 and any(map(fits, word)), in_word)


def keyboard(text: str, draw: random.Random) -> str:
    """Characters replaced by the ones on neighbouring keys."""

    def change(characters: list[str], place: int) -> None:
        old = characters[place]
        new = draw.choice(_NEAR_KEYS[old.lower()])
        characters[place] = new.upper() if old.isupper() else new

    return _on_characters(text, draw, lambda character: character.lower() in _NEAR_KEYS, change)


def ocr(text: str, draw: random.Random) -> str:
    """Characters replaced by ones that look alike."""

    def change(characters: list[str], place: int) -> None:
        characters[place] = draw.choice(_LOOK_ALIKE[characters[place]])

    return _on_characters(text, draw, _LOOK_ALIKE.__contains__, change)


def delete_character(text: str, draw: random.Random) -> str:
    """Characters left out."""

    def change(characters: list[str], place: int) -> None:
        del characters[place]

    return _on_characters(text, draw, str.isalnum, change)


def swap_character(text: str, draw: random.Random) -> str:
    """Characters exchanged with the next one of the word."""

    def change(characters: list[str], place: int) -> None:
        other = place + 1 if place + 1 < len(characters) else place - 1
        characters[place], characters[other] = characters[other], characters[place]

    return _on_characters(text, draw, str.isalnum, change)


def insert_character(text: str, draw: random.Random) -> str:
    """Letters put in."""
    return _on_characters(
        text, draw, str.isalnum, lambda characters, place: characters.insert(place, draw.choice(_LETTERS))
    )


ERRORS: dict[str, Callable[[str, random.Random], str]] = {
    "delete_random_word": delete_word,
    "swap_random_word": swap_word,
    "spelling_error_word": misspell_word,
    "split_random_word": split_word,
    "keyboard_error_char": keyboard,
    "ocr_error_char": ocr,
    "delete_random_char": delete_character,
    "swap_random_char": swap_character,
    "insert_random_char": insert_character,
}
"""By the recipe key that switches each on, in the order in which they are applied."""
