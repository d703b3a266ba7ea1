"""Remove web links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bettersynth.ops._text_codes import I64, CharTable, Codes, SelectiveTextMapper
from bettersynth.ops.mappers.clean_email_mapper import compile_pattern

_START = r"(?:[a-z][\w\-]+:(?:/{1,3}|[a-z0-9%])|www\d{0,3}[.]|[a-z0-9.\-]+[.][a-z]{2,4}/)"
_NESTED = r"\((?:[^\s()<>]+|\([^\s()<>]+\))*\)"
_END = r"[^\s`!()\[\]{};:'\".,<>?\u00ab\u00bb\u201c\u201d\u2018\u2019]"
_LINK = rf"(?i:\b{_START}(?:[^\s()<>]+|{_NESTED})+(?:{_NESTED}|{_END}))"
_COLON, _SLASH, _W, _DOT, _WORD = 16, 8, 4, 2, 1


def _kind(character: str) -> int:
    if character in ":/.":
        return {":": _COLON, "/": _SLASH, ".": _DOT}[character]
    # Without regard to case some letters outside ASCII stand for ASCII ones, so all of them may be part of a link.
    word = _WORD if not character.isascii() or character.isalnum() or character in "-_%" else 0
    return word | (_W if character in "wW" else 0)


_KINDS = CharTable(_kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanLinksMapper(SelectiveTextMapper):
    """Replace links by ``repl``. As in Data-Juicer any ``word:word`` counts as one, and spaces around it stay.

    Args:
        pattern: a regular expression in place of the default; may be written ``r'...'``.
        repl: what is put instead; may refer to groups of the pattern.

    Source: the default follows Data-Juicer's behaviour; its shape is Gruber's liberal URL pattern (2010).
    """

    pattern: str | None = None
    repl: str = ""

    def check(self) -> None:
        """The pattern must be a regular expression."""
        compile_pattern(self.pattern or _LINK)

    def candidates(self, codes: Codes) -> I64:
        """Texts with ``x:y``, ``x:/``, ``www`` or ``.xx/``, without one of which the default pattern cannot match."""
        if self.pattern is not None:
            return np.arange(len(codes))
        kinds = _KINDS.look_up(codes)
        if len(kinds) < 3:
            return np.arange(len(codes))
        first, second, third = kinds[:-2], kinds[1:-1], kinds[2:]
        joined = (first & _WORD > 0) & (second == _COLON) & (third & (_WORD | _SLASH) > 0)
        joined |= (first & second & third & _W) > 0
        joined |= (first & _WORD > 0) & (second & _WORD > 0) & (third == _SLASH)
        return codes.rows_at(np.flatnonzero(joined))

    def rewrite(self, text: str) -> str:
        """The text without links."""
        return compile_pattern(self.pattern or _LINK).sub(self.repl, text)
