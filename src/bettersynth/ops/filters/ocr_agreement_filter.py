"""Keep rows whose caption quotes the words that can be read in the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import ChunkPair, caption_pairs
from bettersynth.ops._quotes import QUOTED_WORDS, check_pattern, quoted_likelihood
from bettersynth.ops.base import IMAGES, TEXT, Batch, RangeFilter, Stats

if TYPE_CHECKING:
    from bettersynth.infer.protocols import Captioner


@dataclass(frozen=True, kw_only=True, slots=True)
class OcrAgreementFilter(RangeFilter):
    """Agreement between words a caption claims to stand in the picture and what a captioner reads there (ours).

    1 is full agreement. Captions that claim no word have no value and stay.

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner, used as reader.
        mode: ``read`` lets it write its own caption and compares the words; ``nll`` asks how likely it finds the
            claimed words themselves (finer, and the better detector of misread signs); ``scored`` takes that from an
            image_caption_nll_filter before it, without another pass of the model.
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

    hf_img2seq: str | None = None
    mode: Literal["read", "nll", "scored"] = "read"
    word_pattern: str = QUOTED_WORDS
    min_score: float | None = 0.5
    max_score: float | None = None
    max_new_tokens: int = 64

    def check(self) -> None:
        """The pattern must be a regular expression, and the mode must have the model it needs."""
        RangeFilter.check(self)
        check_pattern(self.word_pattern)
        if (self.hf_img2seq is None) == (self.mode != "scored"):
            raise ValueError("give hf_img2seq: FOLDER for the modes read and nll, and only for them")

    def needs(self) -> tuple[str, ...]:
        """Text and pictures, or the score that image_caption_nll_filter left."""
        return ("stats.quoted_words",) if self.mode == "scored" else self.reads

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``ocr_agreement`` to five decimals; null where nothing is claimed or there is no single picture."""
        if self.mode == "scored":
            return {self.stat: batch.column("stats.quoted_words")}
        values: list[float | None] = [None] * batch.num_rows
        pairs = [pair for pair in caption_pairs(batch, ctx) if re.search(self.word_pattern, pair.text)]
        if pairs:
            agreement = self._by_reading(pairs, ctx) if self.mode == "read" else self._by_likelihood(pairs, ctx)
            for pair, value in zip(pairs, agreement, strict=True):
                values[pair.row] = value
        return {self.stat: pa.array(values, pa.float64())}

    def _by_reading(self, pairs: list[ChunkPair], ctx: OpContext) -> list[float | None]:
        captions = self._captioner(ctx).caption([pair.images[0] for pair in pairs], max_new_tokens=self.max_new_tokens)
        found: list[float | None] = []
        for pair, caption in zip(pairs, captions, strict=True):
            read = re.findall(self.word_pattern, caption)
            claimed = re.findall(self.word_pattern, pair.text)
            best = [max((_likeness(word, other) for other in read), default=0.0) for word in claimed]
            found.append(round(sum(best) / len(best), 5))
        return found

    def _by_likelihood(self, pairs: list[ChunkPair], ctx: OpContext) -> list[float | None]:
        judged = self._captioner(ctx).nll([p.images[0] for p in pairs], [p.text for p in pairs])
        return [quoted_likelihood(p.text, nll, self.word_pattern) for p, nll in zip(pairs, judged, strict=True)]

    def _captioner(self, ctx: OpContext) -> Captioner:
        assert self.hf_img2seq is not None  # check() refuses None in the modes that come here
        return ctx.captioner(self.hf_img2seq)


def _likeness(a: str, b: str) -> float:
    """Share of matching characters, 0 to 1."""
    return SequenceMatcher(None, a, b, autojunk=False).ratio()
