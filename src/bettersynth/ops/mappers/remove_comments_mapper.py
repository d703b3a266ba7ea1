"""Remove comments of LaTeX documents."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper

_INLINE = re.compile(r"[^\\]%.+$", re.MULTILINE)
_LINES = re.compile(r"^%.*\n?", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveCommentsMapper(SelectiveTextMapper):
    """Comments from a percent sign on; an inline comment takes the character before it with it, as in Data-Juicer.

    Args:
        doc_type: ``tex``, the only kind there is; anything else is read as that, as in Data-Juicer.
        inline: remove comments after text.
        multiline: remove lines that begin with a percent sign.
    """

    doc_type: str | tuple[str, ...] = "tex"
    inline: bool = True
    multiline: bool = True

    def candidates(self, codes: Codes) -> I64:
        """Texts with a percent sign."""
        return codes.rows_with(codes.narrow == ord("%"))

    def rewrite(self, text: str) -> str:
        """The text without comments."""
        text = _INLINE.sub("", text) if self.inline else text
        return _LINES.sub("", text) if self.multiline else text
