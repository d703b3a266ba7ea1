"""Keep rows whose pictures are neither too flat nor too tall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter
from bettersynth.ops.base import Batch, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAspectRatioFilter(PictureFilter):
    """Width / height, from the file's header with EXIF orientation applied. Rows without pictures stay.

    Args:
        min_ratio: smallest width / height.
        max_ratio: largest width / height.
    """

    version: ClassVar[int] = 2
    writes: ClassVar[tuple[str, ...]] = ("stats.aspect_ratios",)
    stat: ClassVar[str] = "aspect_ratios"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_ratio", "max_ratio")
    at_once: ClassVar[bool] = True

    min_ratio: float = 0.333
    max_ratio: float = 3.0

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``aspect_ratios``: lists of width / height, one entry a picture."""
        rows = []
        for places in ctx.image_places(batch):
            headers = [ctx.header(place) for place in places]
            rows.append([header.width / header.height for header in headers])
        return {self.stat: pa.array(rows, pa.list_(pa.float64()))}
