"""Keep rows whose pictures have sides within ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import AnyOrAll, entries, passes
from bettersynth.ops.base import IMAGES, Batch, Filter, Mask, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShapeFilter(Filter):
    """Width and height in pixels, from the file's header with EXIF orientation applied; nothing is decoded.

    Rows without pictures stay, as in Data-Juicer.

    Args:
        min_width, max_width, min_height, max_height: bounds in pixels, inclusive.
        any_or_all: keep when any picture passes, or only when all do.
        min_closed_interval, max_closed_interval: whether a side may equal its bound.
        reversed_range: each of the two sides must lie outside its range.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    version: ClassVar[int] = 2
    writes: ClassVar[tuple[str, ...]] = ("stats.image_width", "stats.image_height")
    keep_params: ClassVar[tuple[str, ...]] = (
        *("min_width", "max_width", "min_height", "max_height", "any_or_all"),
        *("min_closed_interval", "max_closed_interval", "reversed_range"),
    )
    at_once: ClassVar[bool] = True

    min_width: int = 1
    max_width: int | None = None
    min_height: int = 1
    max_height: int | None = None
    any_or_all: AnyOrAll = "any"
    min_closed_interval: bool = True
    max_closed_interval: bool = True
    reversed_range: bool = False

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_width`` and ``image_height``: lists of pixels, one entry a picture."""
        headers = [[ctx.header(place) for place in places] for places in ctx.image_places(batch)]
        kind = pa.list_(pa.int64())
        return {
            "image_width": pa.array([[header.width for header in row] for row in headers], kind),
            "image_height": pa.array([[header.height for header in row] for row in headers], kind),
        }

    def keep(self, stats: Stats) -> Mask:
        """Both sides of a picture must fit."""
        fits = self._inside(entries(stats["image_width"]), self.min_width, self.max_width)
        fits &= self._inside(entries(stats["image_height"]), self.min_height, self.max_height)
        return passes(stats["image_width"], fits, self.any_or_all)

    def _inside(self, sides: npt.NDArray[np.float64], low: int, high: int | None) -> Mask:
        # Reversing flips both ends first, so that "outside" includes the bounds by default.
        has_low = self.min_closed_interval != self.reversed_range
        has_high = self.max_closed_interval != self.reversed_range
        inside: Mask = sides >= low if has_low else sides > low
        if high is not None:
            inside = inside & (sides <= high if has_high else sides < high)
        return ~inside if self.reversed_range else inside

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """One reason for all."""
        return ["image sides inside the range" if self.reversed_range else "image sides out of range"] * len(dropped)
