"""Compiled resizing gives Pillow's bytes, and Pillow itself is used where it does not."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.core import native
from bettersynth.media import lanczos


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("size", [(640, 480), (257, 999), (1201, 333), (480, 640), (300, 256), (4000, 17)])
@pytest.mark.parametrize("small", [(32, 32), (9, 8), (8, 8), (256, 255)])
def test_equals_pillow(size: tuple[int, int], small: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    library = native.library(10**6)
    assert library is not None and lanczos._agrees(library)
    draw = np.random.default_rng(size[0])
    pixels = draw.integers(0, 256, (size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2] = np.where(pixels[: size[1] // 2] > 127, 255, 0)
    image = Image.fromarray(pixels)
    expected = image.resize(small, Image.Resampling.LANCZOS)
    if lanczos._is_usual(image, *small):
        assert lanczos._resized(library, image, small).tobytes() == expected.tobytes()
    assert lanczos.lanczos(image, *small).tobytes() == expected.tobytes()


def test_a_library_that_says_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: 0

    assert not lanczos._agrees(Wrong())
    monkeypatch.setattr(native, "library", lambda _: Wrong())
    image = Image.effect_noise((400, 300), 90).convert("RGB")
    expected = image.resize((32, 32), Image.Resampling.LANCZOS)
    assert lanczos.lanczos(image, 32, 32).tobytes() == expected.tobytes()
