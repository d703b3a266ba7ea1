"""Keep rows whose pictures are sharp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSharpnessFilter(PixelFilter):
    """Variance of the Laplacian of the grey picture (ours): blurred pictures have few edges and a small variance.

    Every picture is judged at the same scale (longer side at most ``side_px``; JPEGs are decoded at a fraction of their
    size), so that the number does not follow the resolution. Below about 50 a photograph looks soft at 640 pixels.
    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.

    Args:
        min_score: smallest variance, in squared grey levels; None to score without dropping.
        max_score: largest variance; noise and dense patterns lie at the top.
        side_px: longer side at which pictures are judged.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.image_sharpness",)
    stat: ClassVar[str] = "image_sharpness"
    per_entry: ClassVar[bool] = True
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_score", "max_score")

    min_score: float | None = 50.0
    max_score: float | None = None
    side_px: int = 640

    def check(self) -> None:
        """Bounds in order, and a side that shows something."""
        PictureFilter.check(self)
        if self.side_px < 16:
            raise ValueError("side_px must be at least 16")

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Variances, to three decimals."""
        return [round(sharpness(ctx.small_image(path, self.side_px)), 3) for path in paths]


def sharpness(image: Image) -> float:
    """Variance of the 4-neighbour Laplacian; 0 for pictures of less than 3 pixels in a direction.

    >>> from PIL import Image
    >>> sharpness(Image.new("RGB", (9, 9), "red"))
    0.0
    """
    grey = np.asarray(image.convert("L"), np.int16)
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var(dtype=np.float64))
