"""Words and special characters as Data-Juicer counts them."""

from __future__ import annotations

import ctypes
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core import native
from bettersynth.ops._text_codes import I64, U8, U32, CharTable, CodeMap, Codes

_SEPARATORS = " \n\t"
_SPECIAL, _SEPARATOR, _ORDINARY = 0, 1, 2
_SHORT_RUN = 8
HARD_TO_LOWER = "\u0130\u03a3\u03c2"  # dotted capital I, capital sigma and final sigma


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
def special_table() -> CharTable:
    """1 for special characters."""
    special = special_characters()
    return CharTable(lambda character: character in special)


@lru_cache(maxsize=1)
def _special_string() -> str:
    return "".join(sorted(special_characters()))


@lru_cache(maxsize=1)
def _delete_special() -> dict[int, None]:
    return dict.fromkeys(map(ord, special_characters()))


def num_special(text: str) -> int:
    """How many characters of the text are special."""
    return len(text) - len(text.translate(_delete_special()))


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


def repeated_share(text: str, n: int) -> float:
    """Share of runs of n words that stand more than once, in lower case; 0 for a text of fewer than n words."""
    found = refined_words(text, lower=True)
    total = len(found) - n + 1
    if total < 1:
        return 0.0
    counts = Counter(zip(*(found[i : i + total] for i in range(n)), strict=True))
    return sum(count for count in counts.values() if count > 1) / total


def refuse_tokenization(asked: bool) -> None:
    """Raise ValueError when an operator is asked to take its words from a tokenizer."""
    if asked:
        raise ValueError(
            "tokenization: true needs Data-Juicer's own tokenizer model, which is not part of this package; "
            "leave it out to count words between white space, or count tokens with token_num_filter"
        )


def strip_special(word: str) -> str:
    """A word without special characters at its ends."""
    return word.strip(_special_string())


def keep_words(text: str, keep: Callable[[str], bool]) -> str:
    """The text with only the words that ``keep`` accepts; empty words, fields and lines vanish.

    >>> keep_words("a  b\\n\\nc\\td ", str.isalpha)
    'a b\\nc\\td'
    """
    lines = []
    for line in text.split("\n"):
        fields = (" ".join(w for w in part.split(" ") if w and keep(w)) for part in line.split("\t"))
        lines.append("\t".join(part for part in fields if part))
    return "\n".join(line for line in lines if line)


@lru_cache(maxsize=8)
def read_word_lists(kind: str, words: tuple[str, ...], folder: str | None, lang: str) -> frozenset[str]:
    """The words given, and those of a language in all ``*KIND*.json`` files of a folder.

    Raises:
        ValueError: no list at all, a file that cannot be read, or a language that no file holds.
    """
    if not words and folder is None:
        raise ValueError(f"give {kind}: [...] or {kind}_dir: FOLDER")
    found = {word.lower() for word in words}
    lists: dict[str, list[str]] = {}
    try:
        for path in sorted(Path(folder).glob(f"*{kind}*.json")) if folder is not None else ():
            for language, more in json.loads(path.read_text(encoding="utf-8")).items():
                lists.setdefault(language, []).extend(more)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"cannot read the word lists: {error!r}") from error
    if folder is not None:
        lists.setdefault("all", [word for more in lists.values() for word in more])
        if not any(lists.values()):
            raise ValueError(f"no *{kind}*.json with words in {folder} (nothing is downloaded)")
        if lang not in lists:
            raise ValueError(f"cannot read the word lists: no language {lang!r} among {', '.join(sorted(lists))}")
        found.update(lists[lang])
    return frozenset(found)


def listed_share(text: str, listed: frozenset[str], sizes: Sequence[int] = (), join: str = "") -> float:
    """Share of a text's words, joined neighbours counted as words, that are listed; 0 for a text without words."""
    found = refined_words(text, lower=True)
    found += [join.join(found[i : i + n]) for n in sizes for i in range(len(found) - n + 1)]
    return sum(word in listed for word in found) / len(found) if found else 0.0


def lower_character(character: str) -> str:
    """Lower case of one character, where that is one character; capital sigma always becomes the same small one.

    Texts with equal lower case are equal here, except where a dotted capital I becomes two characters.
    """
    low = character.lower()
    return "\u03c3" if low == "\u03c2" else low if len(low) == 1 else character


@lru_cache(maxsize=2)
def _kind_table(lower: bool) -> CharTable:
    special = special_characters()

    def kind(character: str) -> int:
        if character in _SEPARATORS:
            return _SEPARATOR
        seen = character.lower() if lower else character
        if len(seen) == 1:
            return _SPECIAL if seen in special else _ORDINARY
        return _SPECIAL if all(part in special for part in seen) else _ORDINARY

    return CharTable(kind)


@lru_cache(maxsize=1)
def _lower_map() -> CodeMap:
    return CodeMap(lower_character)


@dataclass(frozen=True, slots=True)
class WordSpans:
    """Where the refined words of a batch stand: from the first to the last ordinary character of each.

    Args:
        rows: [W] text of each word. starts, stops: [W] first character, and the one after the last.
    """

    rows: U32
    starts: I64
    stops: I64


_last: list[tuple[Codes, U8, WordSpans]] = []


def word_spans(codes: Codes, *, lower: bool) -> WordSpans:
    """The words of all texts, in order; the same ones as :func:`refined_words` gives."""
    kinds: U8 = _kind_table(lower).look_up(codes)
    if _last and _last[0][0] is codes and np.array_equal(_last[0][1], kinds):
        return _last[0][2]  # several filters count the words of a batch
    library = compiled(len(codes))
    spans = _numpy_spans(codes, kinds) if library is None else _compiled_spans(library, codes, kinds)
    _last[:] = [(codes, kinds, spans)]
    return spans


def compiled(rows: int) -> Any | None:
    """The compiled functions once they have shown that they say what numpy and Python say, or None."""
    library = native.library(rows)
    return library if library is not None and _agrees(library) else None


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    texts = [
        "",
        "A a b. -- (a) B!\ta b\n\nA B c",
        " !! ",
        "d " * 9 + "D",
        "\u4f60 \u597d\u3002 \u4f60 \u597d",
        "x--y z",
    ]
    codes = Codes(pa.array(texts, pa.string()))
    kinds = _kind_table(True).look_up(codes)
    ours, theirs = _numpy_spans(codes, kinds), _compiled_spans(library, codes, kinds)
    same = all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("rows", "starts", "stops"))
    expected = [[repeated_share(text, n) for text in texts] for n in (1, 2)]
    return same and [repetition(library, codes, ours, n).tolist() for n in (1, 2)] == expected


def _compiled_spans(library: Any, codes: Codes, kinds: U8) -> WordSpans:
    most = len(kinds) // 2 + len(codes) + 1
    rows, starts, stops = np.empty(most, np.uint32), np.empty(most, np.int64), np.empty(most, np.int64)
    library.bs_words.restype = ctypes.c_int64
    count = library.bs_words(
        *(native.address(kinds), native.address(codes.starts), ctypes.c_int64(len(codes))),
        *(native.address(found) for found in (rows, starts, stops)),
    )
    return WordSpans(rows[:count], starts[:count], stops[:count])


def _numpy_spans(codes: Codes, kinds: U8) -> WordSpans:
    inside = kinds != _SEPARATOR
    opens, closes = inside.copy(), inside.copy()
    filled = codes.lengths > 0
    opens[1:] &= ~inside[:-1]
    closes[:-1] &= ~inside[1:]
    for edge, places in ((opens, codes.starts[:-1][filled]), (closes, codes.starts[1:][filled] - 1)):
        edge[places] = inside[places]
    starts, lasts = np.flatnonzero(opens), np.flatnonzero(closes)
    starts, lasts = _strip(kinds, starts, lasts, 1), _strip(kinds, starts, lasts, -1)
    real = starts <= lasts
    starts, lasts = starts[real], lasts[real]
    return WordSpans(codes.rows[starts], starts, lasts + 1)


def _strip(kinds: U8, starts: I64, lasts: I64, step: int) -> I64:
    """One end of each word moved inwards over special characters; past the other end for words of nothing else."""
    ends = (starts if step == 1 else lasts).copy()
    moving = np.flatnonzero(kinds[ends] == _SPECIAL)
    for _ in range(_SHORT_RUN):
        if not len(moving):
            return ends
        ends[moving] += step
        moving = moving[(starts[moving] <= ends[moving]) & (ends[moving] <= lasts[moving])]
        moving = moving[kinds[ends[moving]] == _SPECIAL]
    ordinary = np.flatnonzero(kinds == _ORDINARY)
    if step == 1:
        found = np.append(ordinary, len(kinds))[np.searchsorted(ordinary, ends[moving])]
    else:
        found = np.insert(ordinary, 0, -1)[np.searchsorted(ordinary, ends[moving], side="right")]
    ends[moving] = np.clip(found, starts[moving] - 1, lasts[moving] + 1)
    return ends


def word_marks(codes: Codes, spans: WordSpans) -> U32:
    """[W] a number per word that words with the same lower case share: from its length and three of its characters.

    It does not hold for texts with a dotted capital I, whose lower case has two characters: :func:`odd_rows`.
    """
    places = (spans.starts, (spans.starts + spans.stops) >> 1, spans.stops - 1)
    marks = (spans.stops - spans.starts).astype(np.uint32)
    for place in places:
        marks *= np.uint32(0x9E3779B1)
        marks += _lower_map().look_up(codes.codes[place])
    return marks


def odd_rows(codes: Codes, characters: str = "\u0130") -> I64:
    """Texts with a dotted capital I, or with other characters that are hard to lower."""
    return codes.rows_at(codes.wide[np.isin(codes.codes[codes.wide], [ord(c) for c in characters])])


def repetition(library: Any, codes: Codes, spans: WordSpans, n: int) -> npt.NDArray[np.float64]:
    """[N] :func:`repeated_share` of each text, compiled.

    It does not hold for texts with :data:`HARD_TO_LOWER`, whose lower case depends on more than the character.
    """
    ratios = np.zeros(len(codes))
    lowered = _lower_map().look_up(codes.codes)
    failed = library.bs_word_repetition(
        *(native.address(part) for part in (lowered, spans.rows, spans.starts, spans.stops)),
        *(ctypes.c_int64(len(spans.rows)), ctypes.c_int64(n), native.address(ratios)),
    )
    if failed:
        raise MemoryError
    return ratios
