"""Remove everything but Chinese characters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops._text_tokens import TokenKeepingMapper

_CHINESE, _ALPHABET, _DIGITS = "\u4e00-\u9fa5", "A-Za-z", "0-9"
_PUNCTUATION = (
    " !%&()*+,\\-./\u00b7\u2014\u201c\u201d\u2022\u3001\u3002\u300a\u300b\uff01\uff06\uff08\uff09\uff0c\uff1a\uff1f"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveNonChineseCharacterMapper(TokenKeepingMapper):
    """Keep U+4E00 to U+9FA5 and, unless told otherwise, ASCII letters, digits and 28 marks, as in Data-Juicer.

    Special tokens stay (a deliberate difference).

    Args:
        keep_alphabet: keep ASCII letters.
        keep_number: keep ASCII digits.
        keep_punc: keep spaces and common punctuation; line feeds always go.
    """

    keep_alphabet: bool = True
    keep_number: bool = True
    keep_punc: bool = True

    def rewrite_around(self, text: str, tokens: re.Pattern[str]) -> str:
        """What is left of the text."""
        kept = _CHINESE + _ALPHABET * self.keep_alphabet + _DIGITS * self.keep_number + _PUNCTUATION * self.keep_punc
        other = re.compile(f"({tokens.pattern})|[^{kept}]")
        return other.sub(lambda match: match.group(1) or "", text)
