"""Open images strictly: what cannot be decoded in full is an error that names the file."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_SINGLE = frozenset(("JpegImageFile", "BmpImageFile"))


def open_image(source: Path | bytes, *, name: str | None = None, at_least_px: int | None = None) -> Image.Image:
    """Decode a picture completely and convert it to RGB (alpha dropped, palette expanded).

    Args:
        source: a file, or the bytes of one.
        name: how messages call the picture; the path by default.
        at_least_px: decode a JPEG at 1/2, 1/4 or 1/8 of its size (several times as fast) as long as its longer side
            keeps this many pixels; other formats come whole.

    Raises:
        DataError: missing, not an image, truncated or otherwise damaged, or too large to decode safely.
    """
    where = name or (str(source) if isinstance(source, Path) else t("an image given as bytes"))
    if isinstance(source, Path) and not source.is_file():
        raise DataError(t("image not found"), where=where)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if at_least_px is not None and max(image.size) > at_least_px:
                # Pillow keeps both sides at or above what is asked for: ask in the picture's own proportions.
                scale = at_least_px / max(image.size)
                image.draft("RGB", (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
            image.load()
            if isinstance(image.info.get("transparency"), bytes):
                del image.info["transparency"]  # a palette's alpha: dropped with a warning on stderr, or without one
            # Files of one picture are closed by load(); without the file behind it the picture needs no copy.
            return image if image.mode == "RGB" and type(image).__name__ in _SINGLE else image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(t("not an image"), where=where) from error
    except Image.DecompressionBombError as error:
        raise DataError(t("the image is too large to decode safely"), where=where, got=error) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # PIL says so for truncated and damaged files; LOAD_TRUNCATED_IMAGES is never switched on here.
        raise DataError(t("truncated or damaged image"), where=where, got=error) from error
