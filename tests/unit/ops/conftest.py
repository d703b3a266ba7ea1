"""Batches for operator tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bettersynth.engine.jobs import BASE_SCHEMA
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import KEY


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six different small pictures, 0.png to 5.png, and copy.png equal to 0.png."""
    for number in range(6):
        rng = np.random.default_rng(number)
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40 + 10 * number, 40), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    return tmp_path


@pytest.fixture
def ctx(pictures: Path) -> OpContext:
    """A context whose pictures lie in the temporary folder."""
    return OpContext(seed=1, image_roots=[pictures], device="cpu")


@pytest.fixture
def batch() -> Callable[..., Any]:
    """batch(texts, images=None, **stats) makes a record batch in the operators' view."""

    def make(texts: list[str], images: list[list[str]] | None = None, **stats: list[Any]) -> Any:
        count = len(texts)
        images = images if images is not None else [[f"{row % 6}.png"] for row in range(count)]
        columns = {
            KEY[0]: [0] * count,
            KEY[1]: list(range(1, count + 1)),
            KEY[2]: [0] * count,
            "id": [f"i{row}" for row in range(count)],
            "text": texts,
            "images": images,
            "__record__": ["{}"] * count,
        }
        arrays = [pa.array(columns[field.name], field.type) for field in BASE_SCHEMA]
        made = pa.record_batch(arrays, schema=BASE_SCHEMA)
        for name, values in stats.items():
            made = made.append_column(f"stats.{name}", pa.array(values))
        return made

    return make
