"""Turn the many kinds of white space into plain spaces."""

from __future__ import annotations

from dataclasses import dataclass

from bettersynth.ops.base import TextMapper

_SPACES = [0x09, 0x20, 0x84, 0xA0, *range(0x2000, 0x200E), 0x202F, 0x205F, 0x2060, 0x3000, 0xFFFC]
_TABLE = dict.fromkeys(_SPACES, " ")


@dataclass(frozen=True, kw_only=True, slots=True)
class WhitespaceNormalizationMapper(TextMapper):
    """Strip the ends, then make each odd space a plain one; line feeds stay, runs are not collapsed (Data-Juicer)."""

    def rewrite(self, text: str) -> str:
        """The text with plain spaces."""
        return text.strip().translate(_TABLE)
