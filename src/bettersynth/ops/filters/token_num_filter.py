"""Keep texts whose number of tokens lies in a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenNumFilter(RangeFilter):
    """Tokens of a local tokenizer, without special tokens, as in Data-Juicer.

    Args:
        hf_tokenizer: a ``tokenizer.json``, a folder that holds one, or a sentencepiece ``.model`` file.
        min_num: fewest tokens.
        max_num: most tokens; None for no limit.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.num_token",)
    models: ClassVar[tuple[str, ...]] = ("hf_tokenizer",)
    stat: ClassVar[str] = "num_token"
    bounds: ClassVar[tuple[str, str]] = ("min_num", "max_num")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_num", "max_num")

    hf_tokenizer: str | None = None
    min_num: int = 10
    max_num: int | None = None

    def check(self) -> None:
        """A tokenizer is needed."""
        RangeFilter.check(self)
        if not self.hf_tokenizer:
            raise ValueError("hf_tokenizer needs a local tokenizer.json, its folder, or a sentencepiece .model file")

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``num_token``."""
        from bettersynth.infer.text_models import load_tokenizer

        assert self.hf_tokenizer is not None  # check() refuses that
        found = load_tokenizer(self.hf_tokenizer).tokenize(batch.column(TEXT).to_pylist())
        return {self.stat: pa.array([len(tokens) for tokens in found], pa.int64())}
