"""Remove sentences that a text has already said."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from bettersynth.core import native
from bettersynth.ops._text_codes import (
    I64,
    U8,
    U32,
    CharTable,
    CodeMap,
    Codes,
    SelectiveTextMapper,
    neighbours,
    rows_that_repeat,
    span_hashes,
)
from bettersynth.ops._words import lower_character

_MARK = ".\u3002!\uff01?\uff1f"
_QUOTE = "\u2019\u201d"
_BREAKS = (
    re.compile(rf"([{_MARK}])([^{_QUOTE}])"),
    re.compile(rf"([.]{{6}})([^{_QUOTE}])"),
    re.compile(rf"(\u2026{{2}})([^{_QUOTE}])"),
    # The mark class of this rule also holds the characters of a repeat count, as in Data-Juicer.
    re.compile(rf"([{_MARK}{{6}}\u20262][{_QUOTE}])([^{_QUOTE}])"),
)
# What a line must hold for each of the rules.
_NEEDED = (_MARK, ("." * 6,), ("\u2026\u2026",), _QUOTE)
_BREAK = "\\1\n\\2"
_OTHER = re.compile(r"[^a-zA-Z0-9\u4e00-\u9fa5\n\t ]")
_OTHER_ASCII = bytes(code for code in range(128) if _OTHER.match(chr(code)))
_LONG = 1 << 27  # characters of a text from which on the compiled table would be too large
_KEPT, _FEED, _CLOSE, _CURLY = 1, 2, 4, 8


def _kind(character: str) -> int:
    if character == "\n":
        return _FEED
    if character in "\u2019\u201d\u2026":
        return _CURLY
    if character in _MARK:
        return _CLOSE
    return _KEPT if character not in " \t" and not _OTHER.match(character) else 0


_KINDS = CharTable(_kind)
_LOWER = CodeMap(lower_character)


def split_sentences(line: str) -> list[str]:
    """Sentences of one line with their spaces, cut after closing punctuation.

    >>> split_sentences("One. Two!")
    ['One.', ' Two!']
    """
    for rule, needs in zip(_BREAKS, _NEEDED, strict=True):
        if any(sign in line for sign in needs):
            line = rule.sub(_BREAK, line)
    return line.split("\n")


def _compiled_candidates(library: Any, codes: Codes, letters: U32, kinds: U8, cut: tuple[int, bool]) -> I64:
    """As :meth:`RemoveRepeatSentencesMapper.candidates`; it may name other texts in vain, but misses none.

    Args:
        cut: (shortest sentence that is compared, whether other characters than letters are compared, too).
    """
    found = np.zeros(len(codes), np.uint8)
    where = (native.address(letters), native.address(kinds), native.address(codes.starts))
    numbers = (ctypes.c_int64(len(codes)), ctypes.c_int64(cut[0]), ctypes.c_int(cut[1]))
    if library.bs_sentences(*where, *numbers, native.address(found)):
        raise MemoryError
    return np.flatnonzero(found)


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    """Whether the compiled function finds the texts that repeat a sentence or are cut in other ways."""
    texts = [
        "",
        "A b. A b.",
        "a. b. c",
        "a\na",
        "one\n\ntwo",
        "x!!",
        "\u2026 a",
        "- - -\n- - -",
        "\u4f60\u3002\u597d\u3002\u4f60\u3002",
        "a!! b.. c",
        "a!! b. a!",
    ]
    codes = Codes(pa.array(texts, pa.string()))
    found = _compiled_candidates(library, codes, codes.codes, _KINDS.look_up(codes), (2, False))
    return bool(found.tolist() == [1, 3, 6, 7, 8, 10])


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveRepeatSentencesMapper(SelectiveTextMapper):
    """Keep the first of equal sentences within each text; lines stay lines, as in Data-Juicer.

    Args:
        lowercase: compare without case.
        ignore_special_character: compare letters, digits, CJK characters and white space only.
        min_repeat_sentence_length: shorter sentences (in compared characters) are always kept.
    """

    lowercase: bool = False
    ignore_special_character: bool = True
    min_repeat_sentence_length: int = 2

    def candidates(self, codes: Codes) -> I64:
        """Texts in which two sentences have the same letters and digits, or that are not cut at every mark.

        Without curly quotes and ellipses a sentence ends after each line and each mark, but not after a mark directly
        behind one that has ended a sentence. Equal sentences have equal letters and digits; sentences without any must
        be long enough to be compared at all.
        """
        if (self.lowercase and len(codes.wide)) or len(codes.codes) == 0 or self.min_repeat_sentence_length < 1:
            return np.arange(len(codes))  # lower case may turn other letters into ASCII ones
        kinds = _KINDS.look_up(codes)
        library = native.library(len(codes))
        if library is not None and _agrees(library) and codes.lengths.max(initial=0) < _LONG:
            letters = _LOWER.look_up(codes.codes) if self.lowercase else codes.codes
            cut = (self.min_repeat_sentence_length, not self.ignore_special_character)
            return _compiled_candidates(library, codes, letters, kinds, cut)
        marks = kinds & (_CLOSE | _FEED) > 0
        stops = np.union1d(np.flatnonzero(marks) + 1, codes.starts[1:][codes.lengths > 0])
        starts = np.concatenate([[0], stops[:-1]])
        rows = codes.rows[starts]
        kept = np.flatnonzero(kinds == _KEPT)
        letters = codes.codes[kept]
        letters = _LOWER.look_up(letters) if self.lowercase else letters
        begin, end = np.searchsorted(kept, starts), np.searchsorted(kept, stops)
        compared = (begin < end) | (stops - starts >= self.min_repeat_sentence_length)
        hashes = span_hashes(letters, begin[compared], end[compared]) >> np.uint64(32)
        closing = kinds == _CLOSE
        odd = np.concatenate([neighbours(closing, closing), np.flatnonzero(kinds == _CURLY)])
        return np.union1d(codes.rows_at(odd), rows_that_repeat(rows[compared], hashes))

    def rewrite(self, text: str) -> str:
        """The text without repeated sentences."""
        seen: set[str] = set()
        lines = []
        for line in text.split("\n"):
            lines.append("".join(s for s in split_sentences(line) if self._is_new(s, seen)) if line else "")
        return "\n".join(lines)

    def _is_new(self, sentence: str, seen: set[str]) -> bool:
        key = sentence.strip()
        key = key.lower() if self.lowercase else key
        if self.ignore_special_character:
            key = key.encode().translate(None, _OTHER_ASCII).decode() if key.isascii() else _OTHER.sub("", key)
        if len(key) < self.min_repeat_sentence_length:
            return True
        is_new = key not in seen
        seen.add(key)
        return is_new
