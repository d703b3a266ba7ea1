"""Expand the macros that a LaTeX document defines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_codes import I64, Codes, SelectiveTextMapper

_COMMAND = re.compile(r"\\newcommand\*?\{(\\[a-zA-Z0-9]+)\}\{(.*?)\}$", re.MULTILINE)
_DEF = re.compile(r"\\def\s*(\\[a-zA-Z0-9]+)\s*\{(.*?)\}$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpandMacroMapper(SelectiveTextMapper):
    """``\\newcommand{\\name}{value}`` and ``\\def\\name{value}`` without arguments, at the end of a line.

    A name counts where no letter or digit follows; of two names in a row the second stays, and the definitions
    themselves are expanded too, all as in Data-Juicer.
    """

    def candidates(self, codes: Codes) -> I64:
        """Texts with a backslash."""
        return codes.rows_with(codes.narrow == ord("\\"))

    def rewrite(self, text: str) -> str:
        """The text with its macros expanded, in the order of their definition: commands first."""
        macros = dict(_COMMAND.findall(text))
        macros.update(_DEF.findall(text))
        for name, value in macros.items():
            use = re.compile(re.escape(name) + "([^a-zA-Z0-9])")
            text = use.sub(lambda match, value=value: value + match.group(1), text)  # type: ignore[misc]
        return text
