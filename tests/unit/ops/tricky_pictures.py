"""Pictures of the kinds that real data sets hold and that operators get wrong. Needs only numpy and Pillow.

Used by the tests and by ``tools/record_data_juicer_images.py``, which asks Data-Juicer about the same files.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ORIENTATION = 0x0112
DAMAGED = ("empty.jpg", "text.jpg", "cut_head.jpg", "cut.webp", "bad_ihdr.png", "missing.jpg")
"""Files that cannot be opened at all."""
CUT = ("cut.jpg", "cut.png", "cut.gif", "cut.bmp")
"""Files that load as far as they go."""


def scene(seed: int, width: int, height: int) -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _late_exif(path: Path) -> None:
    """A PNG whose EXIF block stands behind the pixels."""
    scene(40, 30, 20).save(path)
    data = path.read_bytes()
    body = b"eXIf" + _exif(6).tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:end] + chunk + data[end:])


def _sixteen_bits(path: Path) -> None:
    ramp = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(ramp).save(path)


def _animated(path: Path) -> None:
    frames = [scene(50 + n, 64, 48).quantize(32) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)


def _xmp_turned(path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    scene(41, 70, 30).save(path, xmp=xmp)


def _lettering(path: Path) -> None:
    image = scene(60, 200, 120)
    draw = ImageDraw.Draw(image)
    for line in range(5):
        draw.text((10, 10 + 20 * line), "SALE 50% OFF today only", fill=(255, 255, 255))
    image.save(path)


def _part(name: str, source: str, share: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        data = (path.parent / source).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return write


def _bad_ihdr(path: Path) -> None:
    data = bytearray((path.parent / "rgb.png").read_bytes())
    data[17] ^= 1
    path.write_bytes(bytes(data))


WRITERS: dict[str, Callable[[Path], None]] = {
    "rgb.jpg": lambda path: scene(0, 120, 90).save(path, quality=90),
    "again.jpg": lambda path: scene(0, 120, 90).save(path, quality=90),
    "requantised.jpg": lambda path: scene(0, 120, 90).save(path, quality=60),
    "progressive.jpg": lambda path: scene(1, 90, 120).save(path, progressive=True),
    "grey.jpg": lambda path: scene(2, 64, 64).convert("L").save(path),
    "cmyk.jpg": lambda path: scene(3, 50, 70).convert("CMYK").save(path),
    **{f"turned{n}.jpg": lambda path, n=n: scene(4, 80, 40).save(path, exif=_exif(n)) for n in range(1, 10)},  # type: ignore[misc]
    "xmp.jpg": _xmp_turned,
    "comment.jpg": lambda path: scene(42, 33, 44).save(path, comment=b"x" * 5000),
    "two.mpo": lambda path: scene(43, 32, 24).save(
        path, "MPO", save_all=True, append_images=[scene(44, 32, 24)], exif=_exif(6)
    ),
    "rgb.png": lambda path: scene(5, 60, 80).save(path),
    "palette.png": lambda path: scene(6, 60, 50).quantize(16).save(path),
    "clear_palette.png": lambda path: scene(6, 60, 50).quantize(16).save(path, transparency=3),
    "la.png": lambda path: scene(7, 40, 40).convert("LA").save(path),
    "rgba.png": lambda path: scene(8, 44, 40).convert("RGBA").save(path),
    "one_bit.png": lambda path: scene(9, 48, 40).convert("1").save(path),
    "deep.png": _sixteen_bits,
    "turned.png": lambda path: scene(10, 60, 20).save(path, exif=_exif(6)),
    "late.png": _late_exif,
    "pixel.png": lambda path: scene(11, 1, 1).save(path),
    "flat.png": lambda path: scene(12, 400, 2).save(path),
    "tall.jpg": lambda path: scene(13, 3, 500).save(path),
    "plain.png": lambda path: Image.new("RGB", (40, 40), (90, 90, 90)).save(path),
    "anim.gif": _animated,
    "still.gif": lambda path: scene(14, 55, 44).save(path),
    "lossy.webp": lambda path: scene(15, 61, 47).save(path),
    "lossless.webp": lambda path: scene(16, 62, 48).save(path, lossless=True),
    "turned.webp": lambda path: scene(17, 63, 21).save(path, exif=_exif(8)),
    "alpha.webp": lambda path: scene(18, 64, 22).convert("RGBA").resize((64, 22)).save(path, exif=b""),
    "rgb.bmp": lambda path: scene(19, 37, 29).save(path),
    "palette.bmp": lambda path: scene(20, 38, 30).quantize(8).save(path),
    "turned.tiff": lambda path: scene(21, 45, 15).save(path, exif=_exif(5)),
    "letters.png": _lettering,
    "sub/naïve 图.png": lambda path: scene(22, 52, 41).save(path),
    "cut.jpg": _part("cut.jpg", "rgb.jpg", 0.7),
    "cut.png": _part("cut.png", "rgb.png", 0.6),
    "cut.gif": _part("cut.gif", "still.gif", 0.8),
    "cut.bmp": _part("cut.bmp", "rgb.bmp", 0.7),
    "cut.webp": _part("cut.webp", "lossless.webp", 0.5),
    "cut_head.jpg": _part("cut_head.jpg", "rgb.jpg", 0.1),
    "bad_ihdr.png": _bad_ihdr,
    "empty.jpg": lambda path: path.write_bytes(b"") and None,
    "text.jpg": lambda path: path.write_text("this is no picture at all, really") and None,
}


def draw(folder: Path) -> list[str]:
    """Write all pictures; returns their names (``missing.jpg`` is named but not written)."""
    for name, write in WRITERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)
    return [*WRITERS, "missing.jpg"]


ROWS: list[list[str]] = [
    *([name] for name in (*WRITERS, "missing.jpg")),
    [],
    ["rgb.jpg", "flat.png"],
    ["flat.png", "tall.jpg"],
    ["rgb.jpg", "rgb.jpg"],
    ["flat.png", "flat.png", "rgb.png"],
    ["rgb.jpg", "missing.jpg"],
    ["requantised.jpg", "rgb.png", "grey.jpg", "la.png", "turned6.jpg", "deep.png", "palette.png", "cmyk.jpg"],
    ["rgb.png", "rgb.jpg"],
    ["rgb.jpg", "rgb.png"],
    ["again.jpg", "rgb.png"],
]
"""Pictures per row: each alone, none, several, repeated, one of them gone."""


def grids() -> dict[str, Image.Image]:
    """Pictures with straight lines: grids of panels, tables, slanted and broken ones, and noise."""
    rng = np.random.default_rng(21)
    found = {}
    for number, (rows, columns, size, slant) in enumerate(
        [(2, 2, 300, 0), (3, 4, 420, 0), (1, 5, 360, 0), (6, 6, 300, 0), (3, 3, 320, 2), (3, 3, 320, 9), (0, 0, 200, 0)]
    ):
        noise = rng.integers(0, 256, (size // 20, size // 20, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((size, size * 3 // 4), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for row in range(rows + 1 if rows else 0):
            y = 4 + row * (image.height - 9) // rows
            draw.line([(4, y), (image.width - 5, y + image.width * slant // 57)], "black", 3)
        for column in range(columns + 1 if columns else 0):
            x = 4 + column * (image.width - 9) // columns
            draw.line([(x, 4), (x - image.height * slant // 57, image.height - 5)], "white", 2)
        found[f"grid{number}.png"] = image
    found["flat.png"] = Image.new("RGB", (150, 150), (9, 9, 9))
    return found


def write_grids(folder: Path) -> None:
    """Save :func:`grids`."""
    for name, image in grids().items():
        image.save(folder / name)
