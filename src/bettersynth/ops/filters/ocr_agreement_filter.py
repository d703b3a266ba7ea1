"""Keep rows whose caption quotes the words that can be read in the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import exp
from typing import ClassVar, Literal

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import ChunkPair, caption_pairs
from bettersynth.ops.base import IMAGES, TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class OcrAgreementFilter(RangeFilter):
    """Agreement between words a caption claims to stand in the picture and what a captioner reads there (ours).

    1 is full agreement. Captions that claim no word have no value and stay.

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner, used as reader.
        mode: ``read`` lets it write its own caption and compares the words; ``nll`` asks how likely it finds the
            claimed words themselves (finer, and the better detector of misread signs).
        word_pattern: regular expression of words that quote a picture; capitals and digits by default.
        min_score: smallest agreement, 0 to 1; None to score without dropping.
        max_score: largest agreement.
        max_new_tokens: length of the reader's caption.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.ocr_agreement",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_img2seq",)
    stat: ClassVar[str] = "ocr_agreement"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_score", "max_score")

    hf_img2seq: str = "Salesforce/blip2-opt-2.7b"
    mode: Literal["read", "nll"] = "read"
    word_pattern: str = r"\b[A-Z][A-Z0-9]+\b"
    min_score: float | None = 0.5
    max_score: float | None = None
    max_new_tokens: int = 64

    def check(self) -> None:
        """The pattern must be a regular expression."""
        RangeFilter.check(self)
        try:
            re.compile(self.word_pattern)
        except re.error as error:
            raise ValueError(f"word_pattern is not a regular expression: {error}") from error

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``ocr_agreement`` to five decimals; null where nothing is claimed or there is no single picture."""
        values: list[float | None] = [None] * batch.num_rows
        pairs = [pair for pair in caption_pairs(batch, ctx) if re.search(self.word_pattern, pair.text)]
        if pairs:
            agreement = self._by_reading(pairs, ctx) if self.mode == "read" else self._by_likelihood(pairs, ctx)
            for pair, value in zip(pairs, agreement, strict=True):
                values[pair.row] = round(value, 5)
        return {self.stat: pa.array(values, pa.float64())}

    def _by_reading(self, pairs: list[ChunkPair], ctx: OpContext) -> list[float]:
        reader = ctx.captioner(self.hf_img2seq)
        captions = reader.caption([pair.images[0] for pair in pairs], max_new_tokens=self.max_new_tokens)
        found = []
        for pair, caption in zip(pairs, captions, strict=True):
            read = re.findall(self.word_pattern, caption)
            claimed = re.findall(self.word_pattern, pair.text)
            best = [max((_likeness(word, other) for other in read), default=0.0) for word in claimed]
            found.append(sum(best) / len(best))
        return found

    def _by_likelihood(self, pairs: list[ChunkPair], ctx: OpContext) -> list[float]:
        judged = ctx.captioner(self.hf_img2seq).nll([p.images[0] for p in pairs], [p.text for p in pairs])
        found = []
        for pair, nll in zip(pairs, judged, strict=True):
            words = []
            for match in re.finditer(self.word_pattern, pair.text):
                inside = [
                    value
                    for value, (start, stop) in zip(nll.tokens, nll.spans, strict=True)
                    if start < stop and start >= match.start() and stop <= match.end()
                ]
                if inside:
                    words.append(exp(-sum(inside) / len(inside)))
            # Words beyond the captioner's length cannot be judged; they neither help nor harm.
            found.append(sum(words) / len(words) if words else 1.0)
        return found


def _likeness(a: str, b: str) -> float:
    """Share of matching characters, 0 to 1."""
    return SequenceMatcher(None, a, b, autojunk=False).ratio()
