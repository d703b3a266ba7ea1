"""Keep rows whose two pictures are alike, but not too much (CLIP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter
from bettersynth.ops.base import IMAGES, Batch, Mask, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePairSimilarityFilter(PictureFilter):
    """Cosine of the CLIP vectors of a row's two pictures, as in Data-Juicer.

    A row must have exactly two different pictures; others have no value and go, with a reason of their own
    (Data-Juicer loses them to an error).

    Args:
        hf_clip: folder of a CLIP model.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        min_score: smallest cosine; None to score without dropping.
        max_score: largest cosine.
        keep_others: keep the rows that are no pair (ours).
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    writes: ClassVar[tuple[str, ...]] = ("stats.image_pair_similarity",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_clip",)
    stat: ClassVar[str] = "image_pair_similarity"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_score", "max_score", "keep_others")

    hf_clip: str = "openai/clip-vit-base-patch32"
    trust_remote_code: bool = False
    min_score: float | None = 0.1
    max_score: float | None = 1.0
    keep_others: bool = False

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_pair_similarity``: a list with one cosine, to five decimals; empty where there is no pair."""
        rows = ctx.image_paths(batch)
        owners = [row for row, paths in enumerate(rows) if len(paths) == 2 and paths[0] != paths[1]]
        values: list[list[float]] = [[] for _ in rows]
        if owners:
            images = [ctx.image(path) for row in owners for path in rows[row]]
            vectors_PVD = np.asarray(ctx.scorer(self.hf_clip).embed_images(images)).reshape(len(owners), 2, -1)
            cosines = (vectors_PVD[:, 0] * vectors_PVD[:, 1]).sum(1)
            for row, cosine in zip(owners, cosines, strict=True):
                values[row] = [round(float(cosine), 5)]
        return {self.stat: pa.array(values, pa.list_(pa.float64()))}

    def keep(self, stats: Stats) -> Mask:
        """Inside the range; rows that are no pair as ``keep_others`` says."""
        is_pair = np.asarray(pc.list_value_length(stats[self.stat]).to_numpy(zero_copy_only=False)) > 0
        kept: Mask = np.where(is_pair, PictureFilter.keep(self, stats), self.keep_others)
        return kept

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """``no two different pictures`` for rows that are no pair."""
        values = stats[self.stat].take(pa.array(dropped)).to_pylist()
        pairs = dropped[[bool(value) for value in values]] if len(dropped) else dropped
        named = iter(PictureFilter.reasons(self, stats, pairs))
        return [next(named) if value else "no two different pictures" for value in values]
