"""Pictures for benchmarks: JPEGs of smooth noise, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(folder: Path, count: int, size: tuple[int, int] = (320, 240)) -> list[Path]:
    """``count`` JPEGs of ``size`` (width, height) pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return paths
