"""Bring an image to the square, fixed-size RGB array that the vision towers see. NumPy and PIL only.

The steps equal those of the original Mini-Gemini pipeline (CLIP's image processor on its PIL backend): optional padding
to a square, bicubic antialiased resize of the short side on uint8, centre crop. Scaling to floats is left to the model
side, so that workers hand over one byte per value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PAD_COLOUR = tuple(int(255 * value) for value in CLIP_MEAN)
"""(122, 116, 104): the mean colour, floored."""

ASPECT_RATIOS = ("pad", "square")
"""``pad`` letterboxes to a square; ``square`` keeps the picture and crops its ends."""


def pad_to_square(image: Image.Image) -> Image.Image:
    """Paste an RGB image centred on a mean-coloured square of its longer side (floor at top and left)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), PAD_COLOUR)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def resize_short_side(image: Image.Image, size_px: int) -> Image.Image:
    """Scale so that the short side is ``size_px``; the long side is int(size_px * long / short)."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    other = int(size_px * long / short)
    target = (size_px, other) if width <= height else (other, size_px)
    return image.resize(target, resample=Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, size_px: int) -> Image.Image:
    """Cut a square of ``size_px`` from the middle (floor of the half difference at top and left)."""
    width, height = image.size
    left, top = (width - size_px) // 2, (height - size_px) // 2
    return image.crop((left, top, left + size_px, top + size_px))


def to_square_pixels(image: Image.Image, *, size_px: int, aspect_ratio: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 array (size_px, size_px, 3) of an RGB image.

    Args:
        image: an RGB image, see :func:`bettersynth.media.open.open_image`.
        size_px: side of the result.
        aspect_ratio: ``pad`` or ``square``.
    """
    if aspect_ratio == "pad":
        image = pad_to_square(image)
    return np.asarray(centre_crop(resize_short_side(image, size_px), size_px), dtype=np.uint8)
