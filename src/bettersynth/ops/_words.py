"""Words and special characters as Data-Juicer counts them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def special_characters() -> frozenset[str]:
    """The 1,618 single characters that count as special; read from the table beside this file."""
    found: set[str] = set()
    text = (Path(__file__).parent / "special_characters.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        for item in () if line.startswith("#") else line.split():
            first, _, last = item.partition("-")
            found.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(found)


@lru_cache(maxsize=1)
def _special_string() -> str:
    return "".join(sorted(special_characters()))


@lru_cache(maxsize=1)
def _delete_ordinary() -> dict[int, None]:
    return dict.fromkeys(map(ord, special_characters()))


def num_special(text: str) -> int:
    """How many characters of the text are special."""
    return len(text) - len(text.translate(_delete_ordinary()))


def words(text: str) -> list[str]:
    """Pieces between spaces, line feeds and tabs (only these separate), empty ones dropped.

    >>> words("a  b\\u00a0c")
    ['a', 'b\\xa0c']
    """
    return [word for word in text.replace("\n", " ").replace("\t", " ").split(" ") if word]


def refined_words(text: str, *, lower: bool) -> list[str]:
    """Words with special characters stripped from both ends; words of nothing else vanish.

    >>> refined_words("Hello, World! --", lower=True)
    ['hello', 'world']
    """
    special = _special_string()
    found = words(text.lower() if lower else text)
    # Most words are plain ASCII letters, of which none is special; looking that up is much faster than stripping.
    stripped = (word if word.isascii() and word.isalpha() else word.strip(special) for word in found)
    return [word for word in stripped if word]
