"""Remove IP addresses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper
from bettersynth.ops.mappers.clean_email_mapper import compile_pattern

_OCTET = r"(?:1[0-9][0-9]|2[0-4][0-9]|25[0-5]|[1-9][0-9]|[0-9])"
_GROUP = r"[0-9a-fA-F]{1,4}"
_IP = rf"(?:{_OCTET}\.){{3}}{_OCTET}|(?:{_GROUP}:){{7}}{_GROUP}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanIpMapper(SelectiveTextMapper):
    """Replace IPv4 and full IPv6 addresses wherever they stand, even inside longer numbers, as in Data-Juicer.

    Args:
        pattern: a regular expression in place of the default; may be written ``r'...'``.
        repl: what is put instead; may refer to groups of the pattern.
    """

    pattern: str | None = None
    repl: str = ""

    def check(self) -> None:
        """The pattern must be a regular expression."""
        compile_pattern(self.pattern or _IP)

    def candidates(self, codes: Codes) -> I64:
        """Texts with three full stops or seven colons."""
        if self.pattern is not None:
            return np.arange(len(codes))
        return np.flatnonzero((codes.sums(codes.narrow == 46) >= 3) | (codes.sums(codes.narrow == 58) >= 7))

    def rewrite(self, text: str) -> str:
        """The text without addresses."""
        return compile_pattern(self.pattern or _IP).sub(self.repl, text)
