"""Repair broken Unicode: mojibake, control characters, entities, curly quotes, full-width forms (ftfy)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper, neighbours
from bettersynth.ops._text_fix import PAIRED, TOUCHED, Form, fix, fix_table

Normalization = Literal["NFC", "NFKC", "NFD", "NFKD", "nfc", "nfkc", "nfd", "nfkd"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FixUnicodeMapper(SelectiveTextMapper):
    """``ftfy.fix_text`` with its default settings, as in Data-Juicer.

    Args:
        normalization: Unicode normal form of the result; NFC when not given.

    Source: ftfy 6.3 (Speer, 2019). HTML entities are decoded only in texts without ``<``, so never beside a token.
    """

    normalization: Normalization | None = None

    def form(self) -> Form:
        """The normal form in capitals."""
        form: Form = (self.normalization or "NFC").upper()  # type: ignore[assignment]
        return form

    def candidates(self, codes: Codes) -> I64:
        """Texts with a character that a repair touches, or with two neighbours that could be mojibake."""
        kinds = fix_table(self.form()).look_up(codes)
        places = np.flatnonzero(kinds == TOUCHED)
        if not codes.is_ascii:
            places = np.concatenate([places, neighbours(kinds == PAIRED, kinds == PAIRED)])
        return codes.rows_at(places)

    def rewrite(self, text: str) -> str:
        """The repaired text."""
        return fix(text, self.form())
