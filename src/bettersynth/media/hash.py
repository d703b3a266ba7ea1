"""Perceptual hashes of pictures, equal bit for bit to those of the ``imagededup`` package that Data-Juicer uses.

All start from the RGB picture, resize it with Lanczos **in RGB** and only then convert it to grey; see the facts in
Data-Juicer's ``image_deduplicator``. Each hash is 64 bits, row-major, as 16 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from bettersynth.media.lanczos import lanczos

Grey = npt.NDArray[np.float64]


def _grey(image: Image.Image, width: int, height: int) -> Grey:
    small = lanczos(image, width, height).convert("L")
    return np.asarray(small, dtype=np.float64)


def _hex(bits: npt.NDArray[np.bool_]) -> str:
    return np.packbits(bits.reshape(-1)).tobytes().hex()


def phash(image: Image.Image) -> str:
    """DCT hash: 32x32 grey, top-left 8x8 of the DCT-II, bit = coefficient >= median of the 63 without the mean."""
    from scipy.fft import dct

    grey = _grey(image, 32, 32)
    low = dct(dct(grey, axis=0)[:8], axis=1)[:, :8]
    return _hex(low >= np.sort(low.reshape(-1)[1:])[31])


def dhash(image: Image.Image) -> str:
    """Difference hash: 9 wide, 8 high, bit = pixel brighter than its left neighbour."""
    grey = _grey(image, 9, 8)
    return _hex(grey[:, 1:] > grey[:, :-1])


def ahash(image: Image.Image) -> str:
    """Average hash: 8x8, bit = pixel >= mean."""
    grey = _grey(image, 8, 8)
    return _hex(grey >= grey.mean())


def whash(image: Image.Image) -> str:
    """Wavelet hash: 256x256, level-5 Haar low-pass (32x32 block sums up to scale), bit = block >= median."""
    grey = _grey(image, 256, 256)
    low = grey.reshape(8, 32, 8, 32).sum(axis=(1, 3))
    return _hex(low >= np.median(low))


METHODS: dict[str, Callable[[Image.Image], str]] = {"phash": phash, "dhash": dhash, "whash": whash, "ahash": ahash}
