"""Add copies of rows with another background behind the pictures' foreground."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from bettersynth.ops._caption_guard import names_colour, names_setting
from bettersynth.ops._context import OpContext
from bettersynth.ops._foreground import foreground
from bettersynth.ops._new_pictures import PictureAugmenter

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBackgroundAugmentMapper(PictureAugmenter):
    """The background blurred, or replaced by a plain colour, a gradient or noise (ours).

    Blurring keeps every caption true that does not speak of the background; a replacement is only made for captions
    that say nothing about where things are and name no colour. Pictures whose foreground cannot be told get no copy.

    Args:
        hf_segmenter: folder of a semantic segmentation model; None: what differs from the colours along the border.
        mode: what stands behind the foreground.
        blur_radius: in pixels, for ``blur``.
        min_foreground: smallest believable share of foreground.
        max_foreground: largest believable share.
    """

    models: ClassVar[tuple[str, ...]] = ("hf_segmenter",)

    hf_segmenter: str | None = None
    mode: Literal["blur", "color", "gradient", "noise"] = "blur"
    blur_radius: float = 8
    min_foreground: float = 0.05
    max_foreground: float = 0.85

    def check(self) -> None:
        """Shares in order."""
        PictureAugmenter.check(self)
        if not 0 <= self.min_foreground < self.max_foreground <= 1 or self.blur_radius <= 0:
            raise ValueError("min_foreground must lie below max_foreground (0 to 1), blur_radius above 0")

    def augment(self, path: Path, text: str, ctx: OpContext, generator: random.Random) -> tuple[Image, str] | str:
        """The composed picture with the same text."""
        from PIL import Image as Pictures

        caption = ctx.tokens.strip(text)
        if "background" in caption.lower() or "背景" in caption:
            return "the caption names the background"
        if self.mode != "blur" and (names_setting(caption) or names_colour(caption)):
            return "the caption says where things are"
        image = ctx.image(path)
        mask = foreground(image, self.hf_segmenter, ctx)
        if not self.min_foreground <= mask.mean() <= self.max_foreground:
            return "no foreground that stands out"
        ground = self._ground(image, generator)
        return Pictures.composite(image, ground, Pictures.fromarray((mask * 255).round().astype(np.uint8))), text

    def _ground(self, image: Image, generator: random.Random) -> Image:
        from PIL import Image as Pictures
        from PIL import ImageFilter

        if self.mode == "blur":
            return image.filter(ImageFilter.GaussianBlur(self.blur_radius))
        draw = np.random.default_rng(generator.getrandbits(63))
        if self.mode == "color":
            return Pictures.new("RGB", image.size, tuple(draw.integers(0, 256, 3).tolist()))
        height, width = (2, 2) if self.mode == "gradient" else (image.height, image.width)
        pixels = Pictures.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        return pixels.resize(image.size, Pictures.Resampling.BICUBIC)
