"""Keep rows whose caption does not surprise a captioner that sees the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import caption_pairs
from bettersynth.ops.base import IMAGES, TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCaptionNllFilter(RangeFilter):
    """Mean negative log-likelihood per token of the caption given the picture, in nats (ours; a visual perplexity).

    High for captions of other pictures, spam and broken text. Rows without exactly one picture have no value and stay.

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner.
        min_nll: smallest value; suspiciously likely captions are often boilerplate.
        max_nll: largest value; None to score without dropping.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.image_caption_nll",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_img2seq",)
    stat: ClassVar[str] = "image_caption_nll"
    bounds: ClassVar[tuple[str, str]] = ("min_nll", "max_nll")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_nll", "max_nll")

    hf_img2seq: str = "Salesforce/blip2-opt-2.7b"
    min_nll: float | None = None
    max_nll: float | None = None

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_caption_nll`` to five decimals; null where there is no single picture or no caption."""
        pairs = [pair for pair in caption_pairs(batch, ctx) if pair.text]
        values: list[float | None] = [None] * batch.num_rows
        if pairs:
            judged = ctx.captioner(self.hf_img2seq).nll([p.images[0] for p in pairs], [p.text for p in pairs])
            for pair, nll in zip(pairs, judged, strict=True):
                values[pair.row] = round(nll.mean, 5)
        return {self.stat: pa.array(values, pa.float64())}
