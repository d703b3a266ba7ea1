"""Keep rows whose text describes their pictures (BLIP's matching head)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, ReduceMode, chunk_pairs, reduce_chunks
from bettersynth.ops.base import IMAGES, TEXT, Batch, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextMatchingFilter(PictureFilter):
    """One value per chunk with pictures: probability of a match, reduced over the chunk's pictures, as in Data-Juicer.

    Args:
        hf_blip: folder of a BLIP for image-text retrieval.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        min_score: smallest value; None to score without dropping.
        max_score: largest value.
        horizontal_flip, vertical_flip: mirror the pictures first.
        reduce_mode: how the values of a chunk's pictures become one.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.image_text_matching_score",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_blip",)
    stat: ClassVar[str] = "image_text_matching_score"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_score", "max_score")

    hf_blip: str = "Salesforce/blip-itm-base-coco"
    trust_remote_code: bool = False
    min_score: float | None = 0.003
    max_score: float | None = 1.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    reduce_mode: ReduceMode = "avg"

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_text_matching_score``: lists of probabilities, one per chunk with pictures, to five decimals."""
        pairs = chunk_pairs(batch, ctx, horizontal_flip=self.horizontal_flip, vertical_flip=self.vertical_flip)
        images = [image for pair in pairs for image in pair.images]
        texts = [pair.text for pair in pairs for _ in pair.images]
        scores = ctx.matcher(self.hf_blip).match(images, texts) if pairs else np.zeros(0)
        return {self.stat: reduce_chunks(pairs, scores, self.reduce_mode, batch.num_rows)}
