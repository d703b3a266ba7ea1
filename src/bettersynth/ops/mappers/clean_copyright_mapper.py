"""Remove the copyright comment at the head of a source file."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper

_BLOCK = re.compile(r"/\*.*?\*/", re.DOTALL)
_COPYRIGHT = re.compile("copyright", re.IGNORECASE)
_COMMENT = ("//", "#", "--")


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanCopyrightMapper(SelectiveTextMapper):
    """Delete the first block comment when it says "copyright"; without any block, the leading comment and empty lines.

    As in Data-Juicer the leading lines of every text without a block comment go, whatever they say.
    """

    def candidates(self, codes: Codes) -> I64:
        """Texts with a slash, or that begin like a comment or with an empty line."""
        filled = np.flatnonzero(codes.lengths)
        first = np.isin(codes.narrow[codes.starts[filled]], np.frombuffer(b"/#-\n", np.uint8))
        return np.union1d(codes.rows_with(codes.narrow == ord("/")), filled[first])

    def rewrite(self, text: str) -> str:
        """The text without its head."""
        block = _BLOCK.search(text)
        if block is not None:
            return text[: block.start()] + text[block.end() :] if _COPYRIGHT.search(block.group()) else text
        lines = text.split("\n")
        head = 0
        while head < len(lines) and (not lines[head] or lines[head].startswith(_COMMENT)):
            head += 1
        return "\n".join(lines[head:])
