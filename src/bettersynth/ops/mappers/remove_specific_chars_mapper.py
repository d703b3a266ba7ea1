"""Remove given characters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveSpecificCharsMapper(SelectiveTextMapper):
    """Delete every character that is in ``chars_to_remove``, as in Data-Juicer.

    Args:
        chars_to_remove: the characters, in one text or several; bullets and arrows when not given.
    """

    chars_to_remove: str | tuple[str, ...] = "◆●■►▼▲▴∆▻▷❖♡□"

    def candidates(self, codes: Codes) -> I64:
        """Texts with one of the characters."""
        wanted = np.array([ord(character) for character in "".join(self.chars_to_remove)], np.uint32)
        return codes.rows_with(np.isin(codes.codes, wanted))

    def rewrite(self, text: str) -> str:
        """The text without the characters."""
        return text.translate(dict.fromkeys(map(ord, "".join(self.chars_to_remove))))
