"""Stand-ins for models: deterministic, instant, without weights. For tests and dry runs; never for results.

They look at real pixels and real words, so equal inputs give equal answers and different ones differ, but the
answers mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.seed import derive_seed
from bettersynth.infer.protocols import FloatArray, TextNll

if TYPE_CHECKING:
    from PIL.Image import Image

_WORDS = (
    "red",
    "blue",
    "green",
    "dog",
    "house",
    "tree",
    "bus",
    "sign",
    "left",
    "right",
    "says",
    "STOP",
    "OPEN",
    "CAFE",
)
_DIM = 16


def _image_seed(image: Image) -> int:
    return derive_seed("picture", digest_bytes(image.tobytes()))


class FakeScorer:
    """Scores from hashes of pixels and words, between 0 and 0.4 like a real CLIP's."""

    digest = "fake"

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """[N] numbers in 0..0.4."""
        values = [derive_seed(_image_seed(image), text) % 4001 / 1e4 for image, text in zip(images, texts, strict=True)]
        return np.array(values, np.float64)

    def embed_images(self, images: Sequence[Image]) -> FloatArray:
        """[N, 16] unit vectors that depend on the pixels."""
        return _vectors([_image_seed(image) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """[N, 16] unit vectors that depend on the words."""
        return _vectors([derive_seed("text", text) for text in texts])


def _vectors(seeds: Sequence[int]) -> FloatArray:
    rows = [np.random.default_rng(seed).standard_normal(_DIM) for seed in seeds]
    matrix = np.array(rows, np.float64).reshape(-1, _DIM)
    unit: FloatArray = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit


class FakeCaptioner:
    """Captions of six words drawn by the picture's hash."""

    digest = "fake"

    def caption(
        self, images: Sequence[Image], *, seeds: Sequence[int] | None = None, max_new_tokens: int = 64, prompt: str = ""
    ) -> list[str]:
        """One caption per picture; with seeds they vary."""
        extra = seeds if seeds is not None else [0] * len(images)
        found = []
        for image, seed in zip(images, extra, strict=True):
            draw = np.random.default_rng(derive_seed(_image_seed(image), seed, prompt))
            found.append("a " + " ".join(draw.choice(_WORDS, size=min(5, max_new_tokens))))
        return found

    def nll(self, images: Sequence[Image], texts: Sequence[str]) -> list[TextNll]:
        """One token per word; the words of the picture's own caption are the likely ones."""
        found = []
        for image, own, text in zip(images, self.caption(images), texts, strict=True):
            known = set(own.split())
            spans = tuple(match.span() for match in re.finditer(r"\S+", text))
            base = derive_seed(_image_seed(image)) % 100 / 100
            tokens = tuple(0.1 + base if text[a:b] in known else 2.0 + base for a, b in spans)
            found.append(TextNll(float(np.mean(tokens)) if tokens else 0.0, tokens, spans))
        return found
