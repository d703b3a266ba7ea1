"""Keep rows whose caption does not surprise a captioner that sees the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import caption_pairs
from bettersynth.ops._quotes import QUOTED_WORDS, check_pattern, quoted_likelihood
from bettersynth.ops.base import IMAGES, TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCaptionNllFilter(RangeFilter):
    """Mean negative log-likelihood per token of the caption given the picture, in nats (ours; a visual perplexity).

    High for captions of other pictures, spam and broken text. Rows without exactly one picture have no value and stay.
    The same pass also gives ``quoted_words``: how likely the words are that the caption quotes from the picture, 0 to 1
    (for ``ocr_agreement_filter`` with ``mode: scored``, which then needs no model of its own).

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner.
        min_nll: smallest value; suspiciously likely captions are often boilerplate.
        max_nll: largest value; None to score without dropping.
        word_pattern: regular expression of words that quote a picture; capitals and digits by default.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.image_caption_nll", "stats.quoted_words")
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_img2seq",)
    stat: ClassVar[str] = "image_caption_nll"
    bounds: ClassVar[tuple[str, str]] = ("min_nll", "max_nll")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_nll", "max_nll")

    hf_img2seq: str = "Salesforce/blip2-opt-2.7b"
    min_nll: float | None = None
    max_nll: float | None = None
    word_pattern: str = QUOTED_WORDS

    def check(self) -> None:
        """Bounds in order, and a pattern that is one."""
        RangeFilter.check(self)
        check_pattern(self.word_pattern)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_caption_nll`` and ``quoted_words`` to five decimals; null where there is nothing to judge."""
        pairs = [pair for pair in caption_pairs(batch, ctx) if pair.text]
        values: list[float | None] = [None] * batch.num_rows
        quoted: list[float | None] = [None] * batch.num_rows
        if pairs:
            judged = ctx.captioner(self.hf_img2seq).nll([p.images[0] for p in pairs], [p.text for p in pairs])
            for pair, nll in zip(pairs, judged, strict=True):
                values[pair.row] = round(nll.mean, 5)
                quoted[pair.row] = quoted_likelihood(pair.text, nll, self.word_pattern)
        return {self.stat: pa.array(values, pa.float64()), "quoted_words": pa.array(quoted, pa.float64())}
