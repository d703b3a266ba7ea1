"""Open images strictly: what cannot be decoded in full is an error that names the file."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t


def open_image(source: Path | bytes, *, name: str | None = None) -> Image.Image:
    """Decode a picture completely and convert it to RGB (alpha dropped, palette expanded).

    Args:
        source: a file, or the bytes of one.
        name: how messages call the picture; the path by default.

    Raises:
        DataError: missing, not an image, truncated or otherwise damaged, or too large to decode safely.
    """
    where = name or (str(source) if isinstance(source, Path) else t("an image given as bytes"))
    if isinstance(source, Path) and not source.is_file():
        raise DataError(t("image not found"), where=where)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(t("not an image"), where=where) from error
    except Image.DecompressionBombError as error:
        raise DataError(t("the image is too large to decode safely"), where=where, got=error) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # PIL says so for truncated and damaged files; LOAD_TRUNCATED_IMAGES is never switched on here.
        raise DataError(t("truncated or damaged image"), where=where, got=error) from error
