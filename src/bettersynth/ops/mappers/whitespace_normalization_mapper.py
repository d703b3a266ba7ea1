"""Turn the many kinds of white space into plain spaces."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bettersynth.ops._text_codes import I64, CharTable, Codes, SelectiveTextMapper

_SPACES = [0x09, 0x20, 0x84, 0xA0, *range(0x2000, 0x200E), 0x202F, 0x205F, 0x2060, 0x3000, 0xFFFC]
_ODD_SPACES = "".join(chr(code) for code in _SPACES if code != 0x20)
_ODD_SPACE = re.compile(f"[{_ODD_SPACES}]")
_ODD, _BLANK = 2, 1
_KINDS = CharTable(lambda character: _ODD if character in _ODD_SPACES else _BLANK if character.isspace() else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class WhitespaceNormalizationMapper(SelectiveTextMapper):
    """Strip the ends, then make each odd space a plain one; line feeds stay, runs are not collapsed (Data-Juicer)."""

    def candidates(self, codes: Codes) -> I64:
        """Texts with an odd space, or with any space at an end."""
        kinds = _KINDS.look_up(codes)
        filled = np.flatnonzero(codes.lengths)
        ends = np.concatenate([codes.starts[filled], codes.starts[filled + 1] - 1])
        return codes.rows_at(np.concatenate([np.flatnonzero(kinds == _ODD), ends[kinds[ends] > 0]]))

    def rewrite(self, text: str) -> str:
        """The text with plain spaces."""
        return _ODD_SPACE.sub(" ", text.strip())
