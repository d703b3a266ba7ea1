"""Remove what stands before the first heading of a LaTeX document."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_tokens import TokenKeepingMapper

_HEADING = re.compile(
    r"\\(?:chapter|part|section|subsection|subsubsection|paragraph|subparagraph)\*?(?:\[.*?\])?\{.*?\}", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveHeaderMapper(TokenKeepingMapper):
    """Texts begin with their first chapter, part, section or paragraph heading, as in Data-Juicer.

    Special tokens before the heading stay in front of it (a deliberate difference).

    Args:
        drop_no_head: texts without a heading become empty; otherwise they stay.
    """

    drop_no_head: bool = True

    def rewrite_around(self, text: str, tokens: re.Pattern[str]) -> str:
        """The text from its first heading on."""
        found = _HEADING.search(text)
        start = found.start() if found is not None else len(text) if self.drop_no_head else 0
        return "".join(tokens.findall(text[:start])) + text[start:]
