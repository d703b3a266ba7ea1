"""Replace Chinese and typographic punctuation by ASCII."""

from __future__ import annotations

from dataclasses import dataclass

from bettersynth.ops.base import TextMapper

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
_TABLE = {ord(character): target for target, characters in _GROUPS.items() for character in characters}


@dataclass(frozen=True, kw_only=True, slots=True)
class PunctuationNormalizationMapper(TextMapper):
    """Character by character, with Data-Juicer's table."""

    def rewrite(self, text: str) -> str:
        """The text with ASCII punctuation."""
        return text if text.isascii() else text.translate(_TABLE)
