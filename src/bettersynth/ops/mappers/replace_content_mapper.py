"""Replace what matches regular expressions."""

from __future__ import annotations

from dataclasses import dataclass

from bettersynth.ops.base import TextMapper
from bettersynth.ops.mappers.clean_email_mapper import compile_pattern


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplaceContentMapper(TextMapper):
    """Each pattern in turn is replaced by its ``repl``, or all by the only one, as in Data-Juicer.

    Args:
        pattern: one regular expression or several; each may be written ``r'...'``.
        repl: one replacement or as many as patterns; may refer to groups. Fewer are refused before the run (there
            every row would fail).
    """

    pattern: str | tuple[str, ...] = ()
    repl: str | tuple[str, ...] = ""

    def check(self) -> None:
        """Patterns must be regular expressions, and each needs a replacement."""
        for pattern, _ in self.pairs():
            compile_pattern(pattern)

    def pairs(self) -> list[tuple[str, str]]:
        """(pattern, replacement) in order."""
        patterns = (self.pattern,) if isinstance(self.pattern, str) else self.pattern
        replacements = (self.repl,) * len(patterns) if isinstance(self.repl, str) else self.repl
        if len(replacements) != len(patterns):
            raise ValueError(f"{len(patterns)} patterns but {len(replacements)} replacements")
        return list(zip(patterns, replacements, strict=True))

    def rewrite(self, text: str) -> str:
        """The text with every pattern replaced."""
        for pattern, replacement in self.pairs():
            text = compile_pattern(pattern).sub(replacement, text)
        return text
