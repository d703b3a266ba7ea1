"""Seeds derived by name, so that no result depends on batching, worker count or call order."""

from __future__ import annotations

import random

from bettersynth.core.fingerprint import canonical_json, digest_bytes


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any JSON-like parts, e.g. ``derive_seed(run_seed, "shuffle_selector", str(key))``.

    >>> derive_seed(1, "a") == derive_seed(1, "a") != derive_seed(1, "b")
    True
    """
    return int(digest_bytes(canonical_json([*parts]))[:16], 16) >> 1


def generator(*parts: object) -> random.Random:
    """A standard-library generator seeded by :func:`derive_seed`."""
    return random.Random(derive_seed(*parts))
