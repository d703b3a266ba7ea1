"""Repair broken Unicode: mojibake, control characters, entities, curly quotes, full-width forms (ftfy)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bettersynth.ops.base import TextMapper

Normalization = Literal["NFC", "NFKC", "NFD", "NFKD", "nfc", "nfkc", "nfd", "nfkd"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FixUnicodeMapper(TextMapper):
    """``ftfy.fix_text`` with its default settings, as in Data-Juicer.

    Args:
        normalization: Unicode normal form of the result; NFC when not given.

    Source: ftfy 6.3 (Speer, 2019). HTML entities are decoded only in texts without ``<``, so never beside a token.
    """

    normalization: Normalization | None = None

    def rewrite(self, text: str) -> str:
        """The repaired text; printable ASCII without entities needs no repair and is returned as it is."""
        if text.isascii() and "&" not in text and text.replace("\n", "").isprintable():
            return text
        import ftfy

        form: Literal["NFC", "NFKC", "NFD", "NFKD"] = (self.normalization or "NFC").upper()  # type: ignore[assignment]
        return str(ftfy.fix_text(text, normalization=form))
