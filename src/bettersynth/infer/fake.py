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
from bettersynth.infer.protocols import Box, FaceSearch, FloatArray, Line, LineSearch, TextNll

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


class FakeClassifier:
    """Two logits from the picture's hash; the first, as a rating, lies between 0 and 10."""

    digest = "fake"
    labels = ("no", "yes")

    def logits(self, images: Sequence[Image]) -> FloatArray:
        """[N, 2] numbers."""
        return np.array([_logits(_image_seed(image)) for image in images], np.float64).reshape(-1, 2)


def _logits(seed: int) -> tuple[float, float]:
    return seed % 1001 / 100, derive_seed(seed, "second") % 1001 / 100


class FakeMatcher:
    """Probabilities from hashes of pixels and words."""

    digest = "fake"

    def match(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """[N] numbers in 0..1."""
        pairs = zip(images, texts, strict=True)
        return np.array([derive_seed(_image_seed(image), "match", text) % 1001 / 1e3 for image, text in pairs])


class FakeGrounder:
    """A box per phrase, of a place and score drawn by the hashes of pixels and words."""

    digest = "fake"

    def ground(self, image: Image, phrases: Sequence[str], at_most: int) -> list[Box]:
        """At most one box a phrase, best first."""
        found = []
        for number, phrase in enumerate(phrases):
            draw = np.random.default_rng(derive_seed(_image_seed(image), "box", phrase))
            left, right = np.sort(draw.random(2)) * image.width
            top, bottom = np.sort(draw.random(2)) * image.height
            found.append(Box(number, float(draw.random()), float(left), float(top), float(right), float(bottom)))
        return sorted(found, key=lambda box: -box.score)[:at_most]


class FakeFaces:
    """No, one or two faces of a size drawn by the picture's hash."""

    digest = "fake"

    def faces(
        self, images: Sequence[Image], search: FaceSearch = FaceSearch()
    ) -> list[list[tuple[int, int, int, int]]]:
        """(left, top, width, height) lists."""
        found = []
        for image in images:
            draw = np.random.default_rng(derive_seed(_image_seed(image), "faces"))
            side = max(1, int(min(image.size) * draw.uniform(0.1, 0.6)))
            found.append([(0, 0, side, side), (image.width - side, 0, side, side)][: int(draw.integers(3))])
        return found


class FakeLines:
    """A grid of lines across the picture, of a size drawn by its hash; for some pictures none."""

    digest = "fake"

    def lines(self, images: Sequence[Image], search: LineSearch = LineSearch()) -> list[list[Line]]:
        """(x1, y1, x2, y2) lists."""
        found = []
        for image in images:
            count = int(np.random.default_rng(derive_seed(_image_seed(image), "lines")).integers(0, 6))
            wide, high = image.width - 1, image.height - 1
            across = [(0, high * n // count, wide, high * n // count) for n in range(count)]
            found.append([*across, *((wide * n // count, 0, wide * n // count, high) for n in range(count))])
        return found


class FakeConverter:
    """A handful of simplified characters become traditional ones."""

    def convert(self, text: str) -> str:
        """The text converted."""
        return text.translate(str.maketrans("汉马车红鸟鱼龙门书国", "漢馬車紅鳥魚龍門書國"))


class FakeSegmenter:
    """The middle of the picture, an ellipse, is foreground."""

    digest = "fake"

    def foreground(self, images: Sequence[Image]) -> list[FloatArray]:
        """[height, width] zeros and ones."""
        found = []
        for image in images:
            y, x = np.ogrid[: image.height, : image.width]
            far = ((x + 0.5) / image.width - 0.5) ** 2 + ((y + 0.5) / image.height - 0.5) ** 2
            found.append((far < 0.16).astype(np.float64))
        return found
