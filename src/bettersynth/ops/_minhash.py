"""MinHash signatures and banding, with the arithmetic of Data-Juicer."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core import native

_MERSENNE = np.uint64((1 << 61) - 1)
_MASK = np.uint64((1 << 32) - 1)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd; 2^64 over the golden ratio
_LANES = 16
# Found by search_bands, which takes half a second.
_KNOWN_BANDS = {
    (0.5, 256): (42, 6),
    (0.6, 256): (32, 8),
    (0.7, 256): (25, 10),
    (0.8, 256): (17, 15),
    (0.9, 256): (9, 28),
    (0.5, 128): (25, 5),
    (0.6, 128): (18, 7),
    (0.7, 128): (14, 9),
    (0.8, 128): (9, 13),
    (0.9, 128): (5, 25),
}
U64 = npt.NDArray[np.uint64]


@lru_cache(maxsize=8)
def permutations(count: int) -> tuple[U64, U64]:
    """Factors and offsets of ``count`` hash functions, drawn alternately from RandomState(42)."""
    draw = np.random.RandomState(42)
    pairs = [
        (draw.randint(1, _MERSENNE, dtype=np.uint64), draw.randint(0, _MERSENNE, dtype=np.uint64)) for _ in range(count)
    ]
    factors, offsets = np.array(pairs, np.uint64).T
    return factors, offsets


def signature(windows: set[bytes], count: int) -> U64:
    """[count] minima over the windows' hashes; all 2^32 - 1 for an empty set.

    h is the first 4 bytes of SHA-1 (little-endian); ``h * a + b`` wraps at 64 bits before the modulo.
    """
    if not windows:
        return np.full(count, _MASK, np.uint64)
    joined = b"".join(hashlib.sha1(window, usedforsecurity=False).digest()[:4] for window in windows)
    hashes = np.frombuffer(joined, "<u4").astype(np.uint64)
    factors, offsets = permutations(count)
    mixed = hashes[:, None] * factors
    mixed += offsets
    # x mod (2^61 - 1) without a division: 2^61 is 1 there, so the upper three bits are added to the lower 61.
    upper = mixed >> np.uint64(61)
    mixed &= _MERSENNE
    mixed += upper
    mixed = np.minimum(mixed, mixed - _MERSENNE)  # unsigned: the difference wraps to a large number when it is below
    mixed &= _MASK
    minima: U64 = mixed.min(0)
    return minima


def band_hashes(minima_NP: U64, bands: int, rows: int) -> U64:
    """[N, bands] one 64-bit hash per band of ``rows`` consecutive minima."""
    parts = minima_NP[:, : bands * rows].reshape(-1, bands, rows)
    mixed = np.zeros(parts.shape[:2], np.uint64)
    for row in range(rows):
        mixed = (mixed ^ parts[:, :, row]) * _SPREAD
        mixed ^= mixed >> np.uint64(32)
    return mixed


def bands_of_windows(windows: Sequence[set[bytes]], count: int, bands: int, rows: int) -> U64:
    """[N, bands] band hashes of texts given as their windows, by numpy alone."""
    minima = np.empty((len(windows), count), np.uint64)
    for place, found in enumerate(windows):
        minima[place] = signature(found, count)
    return band_hashes(minima, bands, rows)


def compiled(rows: int) -> Any | None:
    """The compiled functions once they have shown that they say what numpy says, or None."""
    library = native.library(rows)
    return library if library is not None and _agrees(library) else None


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    texts = ["", "one two", " a  b c\n", "a b c d", "é 字 " * 40, " ".join(map(str, range(60)))]
    windows = []
    for text in texts:
        tokens = [token for token in text.split(" ") if token]
        windows.append({" ".join(tokens[i : i + 3]).encode() for i in range(len(tokens) - 2)})
    found, _ = bands_of_texts(library, pa.array(texts, pa.string()), (True, 3), (20, 3, 6))
    return bool((found == bands_of_windows(windows, 20, 3, 6)).all())


def bands_of_texts(library: Any, column: Any, cut: tuple[bool, int], shape: tuple[int, int, int]) -> tuple[U64, Any]:
    """([N, bands] band hashes, [N] number of windows) of a text column, compiled.

    Args:
        column: Arrow strings without nulls.
        cut: (tokens are cut at spaces rather than being characters, tokens per window).
        shape: (permutations, bands, rows per band).
    """
    by_space, window = cut
    count, bands, rows = shape
    size = -(-bands * rows // _LANES) * _LANES
    pairs = [np.zeros(size, np.uint64), np.zeros(size, np.uint64)]
    for padded, drawn in zip(pairs, permutations(count), strict=True):
        padded[: bands * rows] = drawn[: bands * rows]
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    found, windows = np.empty((len(column), bands), np.uint64), np.empty(len(column), np.int64)
    failed = library.bs_minhash(
        native.address(data) if data is not None else None,
        native.address(starts),
        ctypes.c_int64(len(column)),
        ctypes.c_int(by_space),
        ctypes.c_int64(window),
        (ctypes.c_void_p * 2)(*(padded.ctypes.data for padded in pairs)),
        (ctypes.c_int64 * 2)(bands, rows),
        native.address(found),
        native.address(windows),
    )
    if failed:
        raise MemoryError
    return found, windows


def lowered(column: Any) -> Any:
    """The text column with ``str.lower`` of every text."""
    _, offsets, data = column.buffers()
    raw = b"" if data is None else data.to_pybytes()
    if raw.isascii():
        return pa.Array.from_buffers(
            pa.string(), len(column), [None, offsets, pa.py_buffer(raw.lower())], 0, column.offset
        )
    return pa.array([text.lower() for text in column.to_pylist()], pa.string())


@lru_cache(maxsize=32)
def best_bands(threshold: float, count: int) -> tuple[int, int]:
    """(bands, rows) that balance false positives and negatives best at a Jaccard threshold.

    >>> best_bands(0.7, 256)
    (25, 10)
    """
    if (threshold, count) in _KNOWN_BANDS:
        return _KNOWN_BANDS[threshold, count]
    return search_bands(threshold, count)


def search_bands(threshold: float, count: int) -> tuple[int, int]:
    """:func:`best_bands` by trying all."""
    from scipy.integrate import quad

    best, choice = float("inf"), (1, 1)
    for bands in range(1, count + 1):
        for rows in range(1, count // bands + 1):

            def miss(s: float, bands: int = bands, rows: int = rows) -> float:
                return float((1 - s ** float(rows)) ** float(bands))

            false_positive, _ = quad(lambda s, miss=miss: 1 - miss(s), 0.0, threshold)
            false_negative, _ = quad(miss, threshold, 1.0)
            error = 0.5 * false_positive + 0.5 * false_negative
            if error < best:
                best, choice = error, (bands, rows)
    return choice


def components(bands_NB: U64) -> npt.NDArray[np.int64]:
    """[N] number of the cluster of each row; rows that share any band hash are joined."""
    left, right = [], []
    for band in range(bands_NB.shape[1]):
        hashes = np.ascontiguousarray(bands_NB[:, band])
        order = np.argsort(hashes)
        ordered = hashes[order]
        same = np.flatnonzero(ordered[1:] == ordered[:-1])
        left.append(order[same])
        right.append(order[same + 1])
    return join(len(bands_NB), np.concatenate(left), np.concatenate(right))


def join(count: int, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """[count] the first node of each node's connected component, given the two ends of each edge.

    Every edge hangs the higher of its components' first nodes below the lower one; then all nodes look up their first.
    """
    first = np.arange(count, dtype=np.int64)
    while len(left):
        ends = np.stack([first[left], first[right]])
        np.minimum.at(first, ends.max(0), ends.min(0))
        while not np.array_equal(above := first[first], first):
            first = above
        apart = first[left] != first[right]
        left, right = left[apart], right[apart]
    return first
