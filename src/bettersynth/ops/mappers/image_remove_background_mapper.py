"""Cut the foreground of pictures out; the new ones are PNG files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bettersynth.ops._context import OpContext
from bettersynth.ops._foreground import foreground
from bettersynth.ops._new_pictures import PictureMapper

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRemoveBackgroundMapper(PictureMapper):
    """The foreground on a transparent or coloured ground, as in Data-Juicer, with a segmentation model of a folder.

    Rows without pictures stay (Data-Juicer loses them to an error).

    Args:
        hf_segmenter: folder of a semantic segmentation model; None: what differs from the colours along the border.
        alpha_matting: thresholds below turn uncertain shares into all or nothing.
        alpha_matting_foreground_threshold: from this share (of 255) on, all is foreground.
        alpha_matting_background_threshold: up to this share, all is background.
        alpha_matting_erode_size: accepted for Data-Juicer's recipes, without effect here.
        bgcolor: colour (red, green, blue, alpha; 0 to 255) behind the foreground; None: transparent.
    """

    models: ClassVar[tuple[str, ...]] = ("hf_segmenter",)

    hf_segmenter: str | None = None
    alpha_matting: bool = False
    alpha_matting_foreground_threshold: int = 240
    alpha_matting_background_threshold: int = 10
    alpha_matting_erode_size: int = 10
    bgcolor: tuple[int, ...] | None = None

    def check(self) -> None:
        """Four parts of a colour, thresholds in order."""
        if self.bgcolor is not None and (len(self.bgcolor) != 4 or not all(0 <= part <= 255 for part in self.bgcolor)):
            raise ValueError("bgcolor has four parts between 0 and 255: red, green, blue, alpha")
        if self.alpha_matting_background_threshold >= self.alpha_matting_foreground_threshold:
            raise ValueError("alpha_matting_background_threshold must lie below the foreground's")

    def change(self, path: Path, ctx: OpContext, generator: random.Random) -> Image | None:
        """RGBA picture of the foreground."""
        from PIL import Image as Pictures

        image = ctx.image(path)
        share = foreground(image, self.hf_segmenter, ctx) * 255
        if self.alpha_matting:
            share[share >= self.alpha_matting_foreground_threshold] = 255
            share[share <= self.alpha_matting_background_threshold] = 0
        cut = image.copy()
        cut.putalpha(Pictures.fromarray(share.round().astype(np.uint8)))
        if self.bgcolor is None:
            return cut
        return Pictures.alpha_composite(Pictures.new("RGBA", image.size, self.bgcolor), cut)
