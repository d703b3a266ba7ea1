"""Lanczos resizing, equal byte for byte to Pillow's and twice as fast where the compiled loops are at hand."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bettersynth.core import native

_WORTH_PIXELS = 1 << 16
_GROUP = 5  # pixels of three bytes in sixteen lanes, the last of which stays empty
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
    pixels = np.asarray(image)
    first_x, grouped = _across(library, image.width, size[0])
    first_y, weights = _weights(library, image.height, size[1])
    out = np.empty((size[1], size[0], 3), np.uint8)
    failed = library.bs_resize(
        native.address(pixels),
        (ctypes.c_int64 * 2)(image.width, image.height),
        (ctypes.c_void_p * 2)(first_x.ctypes.data, first_y.ctypes.data),
        (ctypes.c_void_p * 2)(grouped.ctypes.data, weights.ctypes.data),
        (ctypes.c_int64 * 2)(size[0], grouped.shape[1]),
        (ctypes.c_int64 * 2)(size[1], weights.shape[1]),
        native.address(out),
    )
    if failed:
        raise MemoryError
    return Image.fromarray(out)


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
def _across(library: Any, size: int, outs: int) -> tuple[I32, I32]:
    """The same with the weights in groups: [outs, groups, 16], each weight once a colour."""
    firsts, weights = _weights(library, size, outs)
    groups = -(-weights.shape[1] // _GROUP)
    padded = np.zeros((outs, groups * _GROUP), np.int32)
    padded[:, : weights.shape[1]] = weights
    lanes = np.zeros((outs, groups, _LANES), np.int32)
    lanes[:, :, : 3 * _GROUP] = np.repeat(padded, 3, axis=1).reshape(outs, groups, 3 * _GROUP)
    return firsts, lanes
