"""Remove e-mail addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper

_EMAIL = r"[A-Za-z0-9.\-+_]+@[a-z0-9.\-+_]+\.[a-z]+"


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanEmailMapper(SelectiveTextMapper):
    """Replace what looks like an address; the domain must be lower-case, as in Data-Juicer.

    Args:
        pattern: a regular expression in place of the default; may be written ``r'...'``.
        repl: what is put instead; may refer to groups of the pattern.
    """

    pattern: str | None = None
    repl: str = ""

    def check(self) -> None:
        """The pattern must be a regular expression."""
        compile_pattern(self.pattern or _EMAIL)

    def candidates(self, codes: Codes) -> I64:
        """Texts with an at sign."""
        return np.arange(len(codes)) if self.pattern is not None else codes.rows_with(codes.narrow == ord("@"))

    def rewrite(self, text: str) -> str:
        """The text without addresses."""
        return compile_pattern(self.pattern or _EMAIL).sub(self.repl, text)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern as Data-Juicer reads it: an enclosing ``r'...'`` is taken off, and dots match line feeds.

    Raises:
        ValueError: not a regular expression.
    """
    if len(pattern) > 2 and pattern[:2] in ("r'", 'r"') and pattern.endswith(pattern[1]):
        pattern = pattern[2:-1]
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
