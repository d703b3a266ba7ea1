"""Remove HTML tags and decode entities."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.core.sample import LLAVA_IMAGE
from bettersynth.ops.base import TextMapper

# A parser takes <image> for a tag; names that start with an underscore are text to it, as Data-Juicer's tokens are.
_SHIELD = "<__bettersynth__image>"
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanHtmlMapper(TextMapper):
    """Text content as the Lexbor parser sees it; list items become ``*`` lines, as in Data-Juicer.

    Special tokens survive, ``<image>`` too (a deliberate difference: Data-Juicer would delete it as a tag).
    White space before the first character is lost, as there.

    Args:
        break_as: what ``<br>`` becomes; nothing in Data-Juicer, a space keeps the words apart (ours).
    """

    break_as: str = ""

    def rewrite(self, text: str) -> str:
        """The text without markup."""
        if not any(mark in text for mark in "<&\r\0"):
            return text.lstrip(" \t\n\f\r")
        from selectolax.lexbor import LexborHTMLParser

        marked = text.replace(LLAVA_IMAGE, _SHIELD)
        for tag in ("<li>", "<ol>"):
            marked = marked.replace(tag, "\n*")
        if self.break_as:
            marked = _BREAK.sub(self.break_as, marked)
        for tag in ("</li>", "</ol>"):
            marked = marked.replace(tag, "")
        return str(LexborHTMLParser(marked).text()).replace(_SHIELD, LLAVA_IMAGE)
