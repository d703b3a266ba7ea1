"""Remove the bibliography, and what follows, of a LaTeX document."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper

_REST = re.compile(
    r"\\(?:appendix|begin\{(?:references|REFERENCES|thebibliography)\}|bibliography\{.*\}).*\Z",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveBibliographyMapper(SelectiveTextMapper):
    """Cut at the first of appendix, references and bibliography, as in Data-Juicer."""

    def candidates(self, codes: Codes) -> I64:
        """Texts with a backslash."""
        return codes.rows_with(codes.narrow == ord("\\"))

    def rewrite(self, text: str) -> str:
        """The text before the bibliography."""
        return _REST.sub("", text)
