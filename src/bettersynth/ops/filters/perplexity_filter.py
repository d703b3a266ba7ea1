"""Keep texts that a language model finds likely enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class PerplexityFilter(RangeFilter):
    """Perplexity per piece, by sentencepiece pieces and an n-gram model, to one decimal, as in Data-Juicer.

    10 to the power of minus the mean log10 probability, over all lines, of the pieces and one end per line; 0 for a
    text without pieces.

    Args:
        model: KenLM file (``en.arpa.bin``), or an ARPA text file (``.arpa``), which needs no further package.
        tokenizer: sentencepiece file (``en.sp.model``) or ``tokenizer.json`` whose pieces the model knows; words
            between spaces when not given.
        lang: accepted for Data-Juicer's recipes; the files decide.
        min_ppl: smallest perplexity.
        max_ppl: largest perplexity.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.perplexity",)
    models: ClassVar[tuple[str, ...]] = ("model", "tokenizer")
    stat: ClassVar[str] = "perplexity"
    bounds: ClassVar[tuple[str, str]] = ("min_ppl", "max_ppl")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ppl", "max_ppl")

    model: str | None = None
    tokenizer: str | None = None
    lang: str = "en"
    min_ppl: float = 0.0
    max_ppl: float | None = 1500.0

    def check(self) -> None:
        """A model is needed; nothing is downloaded."""
        RangeFilter.check(self)
        if not self.model:
            raise ValueError("model needs a local KenLM (.arpa.bin) or ARPA (.arpa) file")

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``perplexity``."""
        from bettersynth.infer.text_models import load_sentences, load_tokenizer

        assert self.model is not None  # check() refuses that
        model = load_sentences(self.model)
        texts = batch.column(TEXT).to_pylist()
        if self.tokenizer:
            texts = [" ".join(pieces) for pieces in load_tokenizer(self.tokenizer).tokenize(texts)]
        values = []
        for text in texts:
            lines = [line.split() for line in text.split("\n")] if text.strip() else []
            length = sum(len(words) + 1 for words in lines)
            total = sum(model.log10(words) for words in lines)
            values.append(round(10.0 ** (-total / length), 1) if length else 0.0)
        return {self.stat: pa.array(values, pa.float64())}
