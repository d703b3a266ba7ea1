"""Remove sentences that a text has already said."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.ops.base import TextMapper

_MARK = r".\u3002!\uff01?\uff1f"
_QUOTE = "\u2019\u201d"
_BREAKS = (
    re.compile(rf"([{_MARK}])([^{_QUOTE}])"),
    re.compile(rf"([.]{{6}})([^{_QUOTE}])"),
    re.compile(rf"(\u2026{{2}})([^{_QUOTE}])"),
    # The mark class of this rule also holds the characters of a repeat count, as in Data-Juicer.
    re.compile(rf"([{_MARK}{{6}}\u20262][{_QUOTE}])([^{_QUOTE}])"),
)
_OTHER = re.compile(r"[^a-zA-Z0-9\u4e00-\u9fa5\n\t ]")


def split_sentences(line: str) -> list[str]:
    """Sentences of one line with their spaces, cut after closing punctuation.

    >>> split_sentences("One. Two!")
    ['One.', ' Two!']
    """
    for rule in _BREAKS:
        line = rule.sub("\\1\n\\2", line)
    return line.split("\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveRepeatSentencesMapper(TextMapper):
    """Keep the first of equal sentences within each text; lines stay lines, as in Data-Juicer.

    Args:
        lowercase: compare without case.
        ignore_special_character: compare letters, digits, CJK characters and white space only.
        min_repeat_sentence_length: shorter sentences (in compared characters) are always kept.
    """

    lowercase: bool = False
    ignore_special_character: bool = True
    min_repeat_sentence_length: int = 2

    def rewrite(self, text: str) -> str:
        """The text without repeated sentences."""
        seen: set[str] = set()
        lines = []
        for line in text.split("\n"):
            lines.append("".join(s for s in split_sentences(line) if self._is_new(s, seen)) if line else "")
        return "\n".join(lines)

    def _is_new(self, sentence: str, seen: set[str]) -> bool:
        key = sentence.strip()
        key = key.lower() if self.lowercase else key
        key = _OTHER.sub("", key) if self.ignore_special_character else key
        if len(key) < self.min_repeat_sentence_length:
            return True
        is_new = key not in seen
        seen.add(key)
        return is_new
