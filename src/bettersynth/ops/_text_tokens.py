"""Text mappers that would delete special tokens if they did not look for them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from bettersynth.formats.data_juicer import DEFAULT_TOKENS
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, TextMapper, with_column


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenKeepingMapper(TextMapper):
    """A text mapper that is told the special tokens in force and leaves every one of them in its text."""

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """Each text rewritten by :meth:`rewrite_around`."""
        tokens = ctx.tokens.pattern()
        texts = [self.rewrite_around(text, tokens) for text in batch.column(TEXT).to_pylist()]
        return with_column(batch, TEXT, pa.array(texts, pa.string()))

    def rewrite(self, text: str) -> str:
        """The new text, with the usual special tokens."""
        return self.rewrite_around(text, DEFAULT_TOKENS.pattern())

    def rewrite_around(self, text: str, tokens: re.Pattern[str]) -> str:
        """The new text; ``tokens`` matches any special token."""
        raise NotImplementedError
