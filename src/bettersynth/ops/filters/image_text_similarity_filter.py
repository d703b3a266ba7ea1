"""Keep rows whose text fits its pictures (CLIP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, ReduceMode, chunk_pairs, reduce_chunks
from bettersynth.ops.base import IMAGES, TEXT, Batch, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextSimilarityFilter(PictureFilter):
    """One value per chunk with pictures: logits per text / 100, reduced over the chunk's pictures, as in Data-Juicer.

    Args:
        hf_clip: folder of a CLIP model.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        min_score: smallest value; None to score without dropping.
        max_score: largest value.
        horizontal_flip, vertical_flip: mirror the pictures first.
        reduce_mode: how the values of a chunk's pictures become one.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.image_text_similarity",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_clip",)
    stat: ClassVar[str] = "image_text_similarity"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_score", "max_score")

    hf_clip: str = "openai/clip-vit-base-patch32"
    trust_remote_code: bool = False
    min_score: float | None = 0.1
    max_score: float | None = 1.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    reduce_mode: ReduceMode = "avg"

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_text_similarity``: lists of numbers, one per chunk with pictures, to five decimals."""
        pairs = chunk_pairs(batch, ctx, horizontal_flip=self.horizontal_flip, vertical_flip=self.vertical_flip)
        images = [image for pair in pairs for image in pair.images]
        texts = [pair.text for pair in pairs for _ in pair.images]
        scores = ctx.scorer(self.hf_clip).score(images, texts) if pairs else np.zeros(0)
        return {self.stat: reduce_chunks(pairs, scores, self.reduce_mode, batch.num_rows)}
