"""Remove web links."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops.base import TextMapper
from bettersynth.ops.mappers.clean_email_mapper import compile_pattern

_START = r"(?:[a-z][\w\-]+:(?:/{1,3}|[a-z0-9%])|www\d{0,3}[.]|[a-z0-9.\-]+[.][a-z]{2,4}/)"
_NESTED = r"\((?:[^\s()<>]+|\([^\s()<>]+\))*\)"
_END = r"[^\s`!()\[\]{};:'\".,<>?\u00ab\u00bb\u201c\u201d\u2018\u2019]"
_LINK = rf"(?i:\b{_START}(?:[^\s()<>]+|{_NESTED})+(?:{_NESTED}|{_END}))"


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanLinksMapper(TextMapper):
    """Replace links by ``repl``. As in Data-Juicer any ``word:word`` counts as one, and spaces around it stay.

    Args:
        pattern: a regular expression in place of the default; may be written ``r'...'``.
        repl: what is put instead; may refer to groups of the pattern.

    Source: the default follows Data-Juicer's behaviour; its shape is Gruber's liberal URL pattern (2010).
    """

    pattern: str | None = None
    repl: str = ""

    def check(self) -> None:
        """The pattern must be a regular expression."""
        compile_pattern(self.pattern or _LINK)

    def rewrite(self, text: str) -> str:
        """The text without links."""
        # The default needs a colon, a www or a slash; most captions have none of them.
        if self.pattern is None and not re.search(r"[:/]|www", text, re.IGNORECASE):
            return text
        return compile_pattern(self.pattern or _LINK).sub(self.repl, text)
