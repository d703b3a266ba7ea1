"""Small copies of pictures for pages."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from bettersynth.media.open import open_image


def thumbnail(path: Path, side_px: int = 160) -> bytes:
    """A JPEG of at most ``side_px`` on its longer side; small pictures keep their size.

    Raises:
        DataError: the file is missing or is not a whole picture.
    """
    image = open_image(path)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return stream.getvalue()
