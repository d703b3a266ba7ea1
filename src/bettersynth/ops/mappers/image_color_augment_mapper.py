"""Add copies of rows with changed colours, as far as their captions stay true."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bettersynth.ops._caption_guard import names_colour, names_light
from bettersynth.ops._context import OpContext
from bettersynth.ops._new_pictures import PictureAugmenter

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageColorAugmentMapper(PictureAugmenter):
    """Brightness, contrast, saturation and hue, each by a factor drawn around 1 (ours).

    Brightness and contrast stay when the caption speaks of light or dark, saturation and hue when it names a colour; a
    caption that names both gets no copy.

    Args:
        brightness: largest change, as a share: 0.2 draws a factor between 0.8 and 1.2.
        contrast: likewise.
        saturation: likewise.
        hue: largest turn of the colour circle, as a share of the whole circle.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02

    def check(self) -> None:
        """Shares, and at least one change."""
        PictureAugmenter.check(self)
        changes = (self.brightness, self.contrast, self.saturation, self.hue)
        if not all(0 <= change < 1 for change in changes) or not any(changes) or self.hue > 0.5:
            raise ValueError("brightness, contrast, saturation (0 to 1) and hue (0 to 0.5): at least one above 0")

    def augment(self, path: Path, text: str, ctx: OpContext, generator: random.Random) -> tuple[Image, str] | str:
        """The recoloured picture with the same text."""
        from PIL import ImageEnhance

        caption = ctx.tokens.strip(text)
        # All four are drawn whatever the caption says, so that its words do not shift the other draws.
        brightness, contrast, saturation, hue = (
            generator.uniform(-reach, reach) for reach in (self.brightness, self.contrast, self.saturation, self.hue)
        )
        if names_light(caption):
            brightness = contrast = 0.0
        if names_colour(caption):
            saturation = hue = 0.0
        if not any((brightness, contrast, saturation, hue)):
            return "the caption names light and colours"
        image = ctx.image(path)
        for enhance, change in (
            (ImageEnhance.Brightness, brightness),
            (ImageEnhance.Contrast, contrast),
            (ImageEnhance.Color, saturation),
        ):
            image = enhance(image).enhance(1 + change) if change else image
        return (turn_hue(image, hue) if hue else image), text


def turn_hue(image: Image, share: float) -> Image:
    """The picture with all hues turned by a share of the colour circle."""
    from PIL import Image as Pictures

    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(share * 256)) % 256
    return Pictures.merge("HSV", (Pictures.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
