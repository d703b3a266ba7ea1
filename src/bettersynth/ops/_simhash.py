"""64-bit similarity hashes, and which of them nearly agree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import xxhash

_BITS = 64
U64 = npt.NDArray[np.uint64]


def simhash(text: str, window: int = 2) -> int:
    """Charikar's simhash over character windows: texts that share windows share bits.

    Source: Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002.
    """
    grams = [text[i : i + window] for i in range(max(1, len(text) - window + 1))]
    hashes = np.array([xxhash.xxh3_64_intdigest(gram.encode()) for gram in grams], np.uint64)
    bits = (hashes[:, None] >> np.arange(_BITS, dtype=np.uint64)) & np.uint64(1)
    votes = bits.sum(0) * 2 > len(grams)
    return int(sum(1 << bit for bit in np.flatnonzero(votes).tolist()))


def md5_simhash(windows: Sequence[bytes]) -> int:
    """Bit by bit the majority of the windows' hashes (first 8 bytes of MD5, big-endian); 0 without windows.

    >>> md5_simhash([b"abc"])
    10376663631224000432
    """
    if not windows:
        return 0
    digests = b"".join(hashlib.md5(window, usedforsecurity=False).digest()[:8] for window in windows)
    bits = np.unpackbits(np.frombuffer(digests, np.uint8)).reshape(len(windows), _BITS)
    majority = np.packbits(bits.sum(0, dtype=np.int64) * 2 > len(windows))
    return int.from_bytes(majority.tobytes(), "big")


def near_pairs(hashes: U64, distance: int, blocks: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All pairs of different hashes in which at most ``distance`` bits differ, as two arrays of positions.

    Of ``blocks`` parts at least ``blocks - distance`` must be equal, so hashes that agree in that many parts are
    compared, for each choice of parts.

    Args:
        hashes: [N] distinct hashes. distance: below ``blocks``.
    """
    edges = [_BITS * part // blocks for part in range(blocks + 1)]
    masks = [((1 << (stop - start)) - 1) << start for start, stop in pairwise(edges)]
    left: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    right = [np.zeros(0, np.int64)]
    for chosen in combinations(masks, blocks - distance):
        keys = hashes & np.uint64(sum(chosen))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # Neighbours in the order at growing steps: step k pairs rows that stand k apart in one group.
        alive = np.arange(len(keys))
        step = 1
        while True:
            alive = alive[alive + step < len(keys)]
            alive = alive[keys[alive] == keys[alive + step]]
            if not len(alive):
                break
            first, second = order[alive], order[alive + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
            left.append(first[close])
            right.append(second[close])
            step += 1
    return np.concatenate(left), np.concatenate(right)
