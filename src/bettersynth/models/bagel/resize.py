"""Which size a picture gets before it is encoded, and its pixels as numbers in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

DEFAULT_MAX_PIXELS = 14 * 14 * 9 * 1024


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """How the sides of a picture are bounded.

    Attributes:
        max_size, min_size: bounds of the longer and of the shorter side in pixels; the lower bound wins.
        stride: both sides become multiples of it.
        max_pixels: bound of the area, shared by the pictures of one record.
    """

    max_size: int
    min_size: int
    stride: int
    max_pixels: int = DEFAULT_MAX_PIXELS

    def size(self, width: int, height: int, num_images: int = 1) -> tuple[int, int]:
        """(width, height) after the rule.

        Over the area bound both sides shrink by the ratio of the areas, not its root: more than needed, and what the
        public weights were trained with.
        """
        scale = max(min(self.max_size / max(width, height), 1.0), self.min_size / min(width, height))
        width, height = self._scaled(width, height, scale)
        most = self.max_pixels / num_images
        if width * height > most:
            width, height = self._scaled(width, height, most / (width * height))
        if max(width, height) > self.max_size:
            width, height = self._scaled(width, height, self.max_size / max(width, height))
        return width, height

    def _scaled(self, width: int, height: int, scale: float) -> tuple[int, int]:
        return self._snap(round(width * scale)), self._snap(round(height * scale))

    def _snap(self, side: int) -> int:
        return max(self.stride, round(side / self.stride) * self.stride)

    def apply(self, image: Image.Image, num_images: int = 1) -> Image.Image:
        """The resized picture (bicubic with antialiasing)."""
        size = self.size(*image.size, num_images)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


VAE_RULE = ResizeRule(1024, 512, 16)
VIT_RULE = ResizeRule(980, 224, 14)
"""Rules of the public weights' inference."""


def on_white(image: Image.Image) -> Image.Image:
    """RGB; transparent parts become white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def to_pixels(image: Image.Image) -> torch.Tensor:
    """RGB picture -> (3, H, W) float32 in [-1, 1]."""
    values = torch.from_numpy(np.asarray(image, dtype=np.uint8).copy()).permute(2, 0, 1)
    return (values.float() / 255 - 0.5) / 0.5


def to_bytes(pixels_3HW: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] -> uint8 (H, W, 3), truncated as the original does."""
    values = ((pixels_3HW.float() * 0.5 + 0.5).clamp(0, 1) * 255).to(torch.uint8)
    return values.permute(1, 2, 0).cpu().numpy()
