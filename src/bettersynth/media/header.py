"""Facts about a picture from the first bytes of its file, without decoding pixels.

The usual JPEG, PNG, GIF, BMP and WebP files are read by a scan of our own (three to four times as fast as opening them
with Pillow, which also decodes a whole PNG to look for EXIF at its end). Whatever is unusual (EXIF in a text chunk,
several EXIF blocks, multi-picture files, rare codecs, other formats) is left to Pillow, so that the answer always
equals that of a full decode.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_ORIENTATION = 0x0112
_SWAPPED = frozenset((5, 6, 7, 8))  # EXIF 2.32, tag 0x0112: the orientations that exchange the sides
_HEAD_BYTES = 4096
_TAIL_BYTES = 64
_SAFE_PIXELS = 178_956_970  # Pillow refuses more than twice its MAX_IMAGE_PIXELS
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
_SWITCH = threading.RLock()


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Width and height in pixels as shown (EXIF orientation applied), file size in bytes, and the format's name.

    ``is_cut`` is True when a JPEG or PNG lacks its end marker, see :func:`looks_truncated`.
    """

    width: int
    height: int
    size_bytes: int
    format: str
    is_cut: bool = False


class _Unsure(Exception):
    """The scan met something that Pillow should judge."""


class _File:
    """Random access to a file of which the head is already in memory."""

    def __init__(self, handle: int, size: int) -> None:
        self.handle, self.size = handle, size
        self.head = os.pread(handle, _HEAD_BYTES, 0)

    def read(self, start: int, count: int) -> bytes:
        """Exactly ``count`` bytes, or :class:`_Unsure` when the file ends before."""
        if start + count <= len(self.head):
            return self.head[start : start + count]
        data = os.pread(self.handle, count, start)
        if len(data) < count:
            raise _Unsure
        return data


def read_header(path: Path | str, *, allow_truncated: bool = False) -> ImageHeader:
    """Read width, height, size and format of a picture file.

    Args:
        path: the file.
        allow_truncated: where Pillow must decode to answer, accept a file that is cut short.

    Raises:
        DataError: the file is missing, empty, or no picture.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(t("image not found"), where=str(Path(path))) from error
    try:
        file = _File(handle, os.fstat(handle).st_size)
        for signature, scan in _SCANS:
            if file.head.startswith(signature):
                header = scan(file)
                if header.width * header.height <= _SAFE_PIXELS:
                    return replace(header, is_cut=True) if _is_cut(file) else header
    except (_Unsure, OSError, struct.error, IndexError):
        pass
    finally:
        os.close(handle)
    return _by_pillow(Path(path), allow_truncated)


def _is_cut(file: _File) -> bool:
    end = _ENDS.get(file.head[:2])
    if end is None or end in os.pread(file.handle, _TAIL_BYTES, max(0, file.size - _TAIL_BYTES)):
        return False
    # Most pictures end with the marker itself, but phones append whole films: look for the end of the picture proper.
    try:
        if end == b"IEND":
            return all(name != end for name, _, _ in _png_chunks(file))
        start = next(at for code, at, _ in _jpeg_segments(file) if code == _START_OF_SCAN)
        # Bytes of 0xFF inside the scan are followed by 0x00 or a restart marker, so this finds no false end.
        return end not in os.pread(file.handle, file.size - start, start)
    except (_Unsure, StopIteration):
        return True


def _jpeg_segments(file: _File) -> Iterator[tuple[int, int, int]]:
    """(marker, offset of the body, its length) of the segments up to the start of the scan (ITU T.81, annex B).

    Those that say nothing of size and orientation are passed over: they are most of them.
    """
    at, head = 2, file.head
    known = len(head) - 4
    while True:
        if at <= known:
            marker, code, length = head[at], head[at + 1], head[at + 2] << 8 | head[at + 3]
        else:
            marker, code, length = struct.unpack(">BBH", file.read(at, 4))
        if marker != 0xFF or length < 2:
            raise _Unsure
        if code not in _SILENT:
            yield code, at + 4, length - 2
            if code == _START_OF_SCAN:
                return
        at += 2 + length


def _png_chunks(file: _File) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the body, its length) of the chunks after IHDR, as far as the file goes."""
    at = 33
    while at + 8 <= file.size:
        length, name = struct.unpack(">I4s", file.read(at, 8))
        yield name, at + 8, length
        at += 12 + length


def _scan_jpeg(file: _File) -> ImageHeader:
    """Frame header and EXIF; the scan itself must have been reached (ITU T.81, annex B)."""
    width = height = orientation = 0
    for code, at, length in _jpeg_segments(file):
        if code in _FRAMES:
            bits, rows, columns, parts = struct.unpack(">BHHB", file.read(at, 6))
            if bits != 8 or parts not in (1, 3, 4) or width or height:
                raise _Unsure
            width, height = columns, rows
        elif code == 0xE1:
            start = file.read(at, min(length, 29))
            if start.startswith(b"Exif\0\0"):
                if orientation:
                    raise _Unsure
                orientation = _orientation(file.read(at + 6, length - 6))
            elif start.startswith(b"http://ns.adobe.com/xap/1.0/") and _turns(file.read(at, length)):
                raise _Unsure
        elif code not in (_START_OF_SCAN, 0xE2) or (code == 0xE2 and file.read(at, 4) == b"MPF\0"):
            raise _Unsure
    if not width or not height:
        raise _Unsure
    return _turned(ImageHeader(width, height, file.size, "JPEG"), orientation)


_START_OF_SCAN = 0xDA
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
# Quantisation and Huffman tables, restart interval, comments, application data without EXIF, XMP or further pictures.
_SILENT = frozenset((0xDB, 0xC4, 0xDD, 0xFE, 0xE0, *range(0xE3, 0xF0)))


def _orientation(exif: bytes) -> int:
    """The orientation in a TIFF block, 1 when it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise _Unsure
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", exif, entry)
        if tag == _ORIENTATION:
            if kind != 3 or number != 1:
                raise _Unsure
            value: int = struct.unpack_from(order + "H", exif, entry + 8)[0]
            return value
    return 1


def _turns(xmp: bytes) -> bool:
    return b"tiff:Orientation" in xmp


def _turned(header: ImageHeader, orientation: int) -> ImageHeader:
    swapped = orientation in _SWAPPED
    return replace(header, width=header.height, height=header.width) if swapped else header


def _scan_png(file: _File) -> ImageHeader:
    """IHDR, then the chunk names to the end: EXIF may stand behind the pixels (PNG 3rd edition, 5.6)."""
    first = file.read(8, 25)
    if first[4:8] != b"IHDR" or zlib.crc32(first[4:21]) != int.from_bytes(first[21:25]):
        raise _Unsure
    width, height = struct.unpack(">II", first[8:16])
    orientation, has_pixels = 0, False
    for name, at, length in _png_chunks(file):
        if name == b"eXIf" and not orientation and at + length <= file.size:
            orientation = _orientation(file.read(at, length))
        elif name in (b"eXIf", b"acTL") or (name in (b"tEXt", b"zTXt", b"iTXt") and not _plain_text(file, at, length)):
            raise _Unsure
        elif name == b"IEND":
            break
        has_pixels |= name == b"IDAT"
    if not has_pixels or not width or not height:
        raise _Unsure
    return _turned(ImageHeader(width, height, file.size, "PNG"), orientation)


def _plain_text(file: _File, at: int, length: int) -> bool:
    """Whether a text chunk is one that can say nothing about the orientation."""
    start = file.read(at, min(length, 24))
    return not start.lower().startswith((b"raw profile", b"xml:com.adobe", b"exif"))


def _scan_gif(file: _File) -> ImageHeader:
    """Screen size, widened by the first frame as Pillow does (GIF89a, sections 18 and 20)."""
    width, height, flags = struct.unpack("<HHB", file.read(6, 5))
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while True:
        kind = file.read(at, 1)
        if kind == b"!":
            if file.read(at + 1, 1) == b"\xff" and file.read(at + 3, 8) == b"XMP Data":
                raise _Unsure
            at += 2
            while step := file.read(at, 1)[0]:
                at += 1 + step
            at += 1
        elif kind == b",":
            left, top, across, down = struct.unpack("<HHHH", file.read(at + 1, 8))
            size = (max(width, left + across), max(height, top + down))
            if not all(size) or not (across and down):
                raise _Unsure
            return ImageHeader(*size, file.size, "GIF")
        else:
            raise _Unsure


def _scan_bmp(file: _File) -> ImageHeader:
    """The plain Windows bitmaps of 8, 24 and 32 bits without compression; others are Pillow's."""
    kind, width, height, planes, bits, packed = struct.unpack("<IiiHHI", file.read(14, 20))
    if kind not in (40, 108, 124) or planes != 1 or bits not in (8, 24, 32) or packed or width <= 0 or not height:
        raise _Unsure
    return ImageHeader(width, abs(height), file.size, "BMP")


def _scan_webp(file: _File) -> ImageHeader:
    """The three first chunks of a WebP container (RFC 9649); cut files and those with EXIF or XMP are Pillow's."""
    size, form, name = struct.unpack("<I4s4s", file.read(4, 12))
    if form != b"WEBP" or size + 8 > file.size:
        raise _Unsure
    if name == b"VP8X":
        flags = file.read(20, 1)[0]
        if flags & 0x0E:  # EXIF, XMP, animation
            raise _Unsure
        body = file.read(24, 6)
        return ImageHeader(
            1 + int.from_bytes(body[:3], "little"), 1 + int.from_bytes(body[3:], "little"), file.size, "WEBP"
        )
    if name == b"VP8L":
        mark, bits = struct.unpack("<BI", file.read(20, 5))
        if mark != 0x2F:
            raise _Unsure
        return ImageHeader(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), file.size, "WEBP")
    if name == b"VP8 ":
        start, width, height = struct.unpack("<3sHH", file.read(23, 7))
        if start != b"\x9d\x01\x2a":
            raise _Unsure
        return ImageHeader(width & 0x3FFF, height & 0x3FFF, file.size, "WEBP")
    raise _Unsure


_SCANS: tuple[tuple[bytes, Callable[[_File], ImageHeader]], ...] = (
    (b"\xff\xd8\xff", _scan_jpeg),
    (b"\x89PNG\r\n\x1a\n", _scan_png),
    (b"RIFF", _scan_webp),
    (b"GIF89a", _scan_gif),
    (b"GIF87a", _scan_gif),
    (b"BM", _scan_bmp),
)


def _by_pillow(path: Path, allow_truncated: bool) -> ImageHeader:
    from PIL import Image, UnidentifiedImageError

    try:
        with tolerate_truncation(allow_truncated), Image.open(path) as image:
            kind = image.format or ""
            # A PNG is decoded here: EXIF may stand at its end.
            # A TIFF's size is given as shown already.
            swapped = kind != "TIFF" and image.getexif().get(_ORIENTATION, 1) in _SWAPPED
            width, height = image.size
    except FileNotFoundError as error:
        raise DataError(t("image not found"), where=str(path)) from error
    except UnidentifiedImageError as error:
        raise DataError(t("not an image"), where=str(path)) from error
    except Image.DecompressionBombError as error:
        raise DataError(t("the image is too large to decode safely"), where=str(path), got=error) from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        raise DataError(t("truncated or damaged image"), where=str(path), got=error) from error
    width, height = (height, width) if swapped else (width, height)
    return ImageHeader(width, height, path.stat().st_size, kind, looks_truncated(path))


@contextmanager
def tolerate_truncation(is_on: bool) -> Iterator[None]:
    """Let Pillow load pictures that are cut short while this lasts, if ``is_on``.

    Pillow has one switch for the whole process and none per call; it is set back at once, and a lock keeps other
    threads from setting it meanwhile.
    """
    if not is_on:
        yield
        return
    from PIL import ImageFile

    with _SWITCH:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def looks_truncated(path: Path) -> bool:
    """True when a JPEG or PNG file lacks its end marker; other formats, and missing files, are not judged.

    Reads 64 bytes at the end, and more only when the marker is not there: phones append films and maps of depth.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _is_cut(_File(handle, os.fstat(handle).st_size))
    except OSError:
        return False
    finally:
        os.close(handle)
