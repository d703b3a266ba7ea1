"""Small copies of pictures for pages."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps

from bettersynth.media.open import open_image


def thumbnail(path: Path, side_px: int = 160) -> bytes:
    """A JPEG of at most ``side_px`` on its longer side, EXIF orientation applied; small pictures keep their size.

    Raises:
        DataError: the file is missing or is not a whole picture.
    """
    image = open_image(path, at_least_px=2 * side_px)
    ImageOps.exif_transpose(image, in_place=True)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return stream.getvalue()
