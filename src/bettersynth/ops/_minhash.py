"""MinHash signatures and banding, with the arithmetic of Data-Juicer."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

_MERSENNE = np.uint64((1 << 61) - 1)
_MASK = np.uint64((1 << 32) - 1)
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


def band_hashes(signature_P: U64, bands: int, rows: int) -> list[int]:
    """One 64-bit hash per band of ``rows`` consecutive minima."""
    data = signature_P[: bands * rows].astype("<u8").tobytes()
    size = rows * 8
    return [xxhash.xxh3_64_intdigest(data[i * size : (i + 1) * size]) for i in range(bands)]


@lru_cache(maxsize=32)
def best_bands(threshold: float, count: int) -> tuple[int, int]:
    """(bands, rows) that balance false positives and negatives best at a Jaccard threshold.

    >>> best_bands(0.7, 256)
    (25, 10)
    """
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
        order = np.argsort(bands_NB[:, band], kind="stable")
        ordered = bands_NB[order, band]
        same = np.flatnonzero(ordered[1:] == ordered[:-1])
        left.append(order[same])
        right.append(order[same + 1])
    return join(len(bands_NB), np.concatenate(left), np.concatenate(right))


def join(count: int, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """[count] number of the connected component of each node, given the two ends of each edge."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
