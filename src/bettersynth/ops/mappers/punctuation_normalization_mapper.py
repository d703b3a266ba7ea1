"""Replace Chinese and typographic punctuation by ASCII."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_codes import I64, CharTable, Codes, SelectiveTextMapper

# The 34 characters that Data-Juicer maps, the full-width digit one among them (its quirk, kept for equal results).
_GROUPS = {
    ",": "\uff0c\u3001",
    ".": "\u3002",
    '"': "\u201e\u201d\u201c\u00ab\u00bb\uff11\u300d\u300c\u300a\u300b",
    "'": "\u00b4\u2019",
    ":": "\u2236\uff1a",
    "?": "\uff1f",
    "!": "\uff01",
    "(": "\uff08",
    ")": "\uff09",
    ";": "\uff1b",
    "-": "\u2013\u2501\u25ba",
    " - ": "\u2014",
    ". ": "\uff0e",
    "~": "\uff5e",
    "...": "\u2026",
    "<": "\u3008",
    ">": "\u3009",
    "[": "\u3010",
    "]": "\u3011",
    "%": "\uff05",
}
_TABLE = {character: target for target, characters in _GROUPS.items() for character in characters}
_MAPPED = re.compile(f"[{''.join(_TABLE)}]")
_KINDS = CharTable(_TABLE.__contains__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PunctuationNormalizationMapper(SelectiveTextMapper):
    """Character by character, with Data-Juicer's table."""

    def candidates(self, codes: Codes) -> I64:
        """Texts with one of the characters."""
        return codes.rows_with(_KINDS.look_up(codes))

    def rewrite(self, text: str) -> str:
        """The text with ASCII punctuation."""
        return _MAPPED.sub(lambda match: _TABLE[match.group()], text)
