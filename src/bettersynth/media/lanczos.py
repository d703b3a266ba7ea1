"""Lanczos resizing, equal byte for byte to Pillow's and twice as fast where the compiled loops are at hand."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from bettersynth.core import native

_WORTH_PIXELS = 1 << 16
_LANES = 16
_MAKES_COMPILING_WORTH = 1 << 10
I32 = npt.NDArray[np.int32]


def lanczos(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in another size, as ``image.resize((width, height), LANCZOS)`` gives it."""
    if _is_usual(image, width, height):
        library = native.library(_MAKES_COMPILING_WORTH)
        if library is not None and _agrees(library):
            return _resized(library, image, (width, height))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _is_usual(image: Image.Image, width: int, height: int) -> bool:
    """Whether the picture is large and not tall: Pillow resizes tall ones down first, and so rounds otherwise."""
    if image.mode != "RGB" or image.width * image.height < _WORTH_PIXELS:
        return False
    is_tall = 3 * image.height * width > 4 * image.width * height
    return not is_tall and image.width >= 3 * width and image.height >= 3 * height


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    """Whether the compiled loops say what this Pillow says, on noise: wide, square and as tall as is taken here."""
    draw = np.random.default_rng(1)
    for height, width in ((61, 197), (101, 101), (200, 150)):
        noise = draw.integers(0, 256, (height, width, 3), np.uint8)
        noise[:, width // 2 :, 1] = 255
        image = Image.fromarray(noise)
        for size in ((32, 32), (9, 8)):
            expected = image.resize(size, Image.Resampling.LANCZOS)
            if _resized(library, image, size).tobytes() != expected.tobytes():
                return False
    return True


def _resized(library: Any, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    pixels, num_bytes = _pixels(image)
    first_x, grouped = _across(library, image.width, size[0], num_bytes)
    first_y, weights = _weights(library, image.height, size[1])
    out = np.empty((size[1], size[0], 3), np.uint8)
    failed = library.bs_resize(
        native.address(pixels),
        (ctypes.c_int64 * 3)(image.width, image.height, num_bytes),
        (ctypes.c_void_p * 2)(first_x.ctypes.data, first_y.ctypes.data),
        (ctypes.c_void_p * 2)(grouped.ctypes.data, weights.ctypes.data),
        (ctypes.c_int64 * 2)(size[0], grouped.shape[1]),
        (ctypes.c_int64 * 2)(size[1], weights.shape[1]),
        native.address(out),
    )
    if failed:
        raise MemoryError
    return Image.fromarray(out)


def _pixels(image: Image.Image) -> tuple[Any, int]:
    """Where the pixels lie and how many bytes each has: Pillow's own memory, or a copy where it has no Arrow view.

    Older versions have none, nor have pictures of more than one block of memory (16 MB).
    """
    try:
        return pa.array(image).values.buffers()[1], 4
    except (AttributeError, ValueError, TypeError, pa.ArrowException):
        return np.asarray(image), 3


@lru_cache(maxsize=256)
def _weights(library: Any, size: int, outs: int) -> tuple[I32, I32]:
    """[outs] first pixel of each result, and [outs, pixels] its weights with 22 bits behind the point."""
    most = 2 * math.ceil(3 * max(1.0, size / outs)) + 1
    firsts, weights = np.zeros(outs, np.int32), np.zeros((outs, most), np.int32)
    lengths = (ctypes.c_int64(size), ctypes.c_int64(outs), ctypes.c_int64(most))
    if library.bs_lanczos(*lengths, native.address(firsts), native.address(weights)):
        raise ValueError(f"{size} to {outs} pixels")
    return firsts, weights


@lru_cache(maxsize=256)
def _across(library: Any, size: int, outs: int, num_bytes: int) -> tuple[I32, I32]:
    """The same with the weights in groups of sixteen: [outs, groups, 16], each weight once a colour.

    A group holds five pixels of three bytes, or four of four bytes with a weight of 0 for the last.
    """
    firsts, weights = _weights(library, size, outs)
    group = _LANES // num_bytes
    groups = -(-weights.shape[1] // group)
    padded = np.zeros((outs, groups * group), np.int32)
    padded[:, : weights.shape[1]] = weights
    lanes = np.zeros((outs, groups, _LANES), np.int32)
    pixels = lanes[:, :, : num_bytes * group].reshape(outs, groups, group, num_bytes)
    pixels[..., :3] = padded.reshape(outs, groups, group, 1)
    lanes[:, :, : num_bytes * group] = pixels.reshape(outs, groups, -1)
    return firsts, lanes
