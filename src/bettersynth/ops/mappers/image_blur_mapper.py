"""Blur some of the pictures; the new ones are new files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bettersynth.ops._context import OpContext
from bettersynth.ops._new_pictures import PictureMapper

if TYPE_CHECKING:
    from PIL.Image import Image

BlurType = Literal["gaussian", "mean", "box"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBlurMapper(PictureMapper):
    """Each distinct picture of a row is blurred with probability ``p``, as in Data-Juicer, but by the run's seed.

    Args:
        p: share of the pictures to blur, 0 to 1.
        blur_type: Gaussian, box, or ``mean``: Pillow's fixed 5 x 5 kernel, which has no radius.
        radius: in pixels.
    """

    p: float = 0.2
    blur_type: BlurType = "gaussian"
    radius: float = 2

    def check(self) -> None:
        """A share, and a radius that is none below 0."""
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be between 0 and 1, not {self.p}")
        if self.radius < 0:
            raise ValueError("radius must not be negative")

    def change(self, path: Path, ctx: OpContext, generator: random.Random) -> Image | None:
        """The blurred picture, if it is drawn."""
        return None if generator.random() > self.p else blur(ctx.image(path), self.blur_type, self.radius)


def blur(image: Image, kind: BlurType, radius: float) -> Image:
    """An RGB picture blurred by Pillow."""
    from PIL import ImageFilter

    if kind == "mean":
        return image.filter(ImageFilter.BLUR)
    return image.filter(ImageFilter.GaussianBlur(radius) if kind == "gaussian" else ImageFilter.BoxBlur(radius))
