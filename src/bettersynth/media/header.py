"""Facts about a picture from the first bytes of its file, without decoding pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_ORIENTATION = 0x0112
_TAIL_BYTES = 64


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Width and height in pixels as shown (EXIF orientation applied), file size in bytes, and the format's name."""

    width: int
    height: int
    size_bytes: int
    format: str


def read_header(path: Path) -> ImageHeader:
    """Read width, height, size and format of a picture file.

    Raises:
        DataError: the file is missing, empty, or no picture.
    """
    try:
        size = path.stat().st_size
        with Image.open(path) as image:
            width, height = image.size
            # Only orientations 5 to 8 swap the sides (EXIF 2.32, tag 0x0112).
            swapped = (
                image.format in ("JPEG", "PNG", "WEBP", "TIFF", "MPO") and image.getexif().get(_ORIENTATION, 1) >= 5
            )
            kind = image.format or ""
    except FileNotFoundError as error:
        raise DataError(t("image not found"), where=str(path)) from error
    except UnidentifiedImageError as error:
        raise DataError(t("not an image"), where=str(path)) from error
    except Image.DecompressionBombError as error:
        raise DataError(t("the image is too large to decode safely"), where=str(path), got=error) from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        raise DataError(t("truncated or damaged image"), where=str(path), got=error) from error
    return ImageHeader(height, width, size, kind) if swapped else ImageHeader(width, height, size, kind)


def looks_truncated(path: Path) -> bool:
    """True when a JPEG or PNG file lacks its end marker; other formats, and missing files, are not judged.

    Reads 64 bytes at each end. Trailing bytes after the marker (as some cameras write) are tolerated up to that length.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _TAIL_BYTES))
            tail = handle.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in tail
    return False
