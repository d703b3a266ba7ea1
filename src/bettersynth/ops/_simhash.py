"""A 64-bit similarity hash of short texts."""

from __future__ import annotations

import numpy as np
import xxhash

_BITS = 64


def simhash(text: str, window: int = 2) -> int:
    """Charikar's simhash over character windows: texts that share windows share bits.

    Source: Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002.
    """
    grams = [text[i : i + window] for i in range(max(1, len(text) - window + 1))]
    hashes = np.array([xxhash.xxh3_64_intdigest(gram.encode()) for gram in grams], np.uint64)
    bits = (hashes[:, None] >> np.arange(_BITS, dtype=np.uint64)) & np.uint64(1)
    votes = bits.sum(0) * 2 > len(grams)
    return int(sum(1 << bit for bit in np.flatnonzero(votes).tolist()))
