"""A small noisy data set, and recipes over it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe
from bettersynth.engine.plan import check_steps

WORDS = ["a", "red", "blue", "dog", "house", "sign", "says", "STOP", "big", "small", "tree", "sky", "near", "the"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with d.jsonl (60 rows, two of them bad) and twelve pictures."""
    rng = random.Random(0)
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for number in range(12):
        small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40 + number, 40)).save(folder / "images" / f"{number}.png")
    lines = []
    for number in range(60):
        text = " ".join(rng.choices(WORDS, k=rng.randint(2, 12)))
        row: dict[str, Any] = {"id": f"{number:04d}", "images": [f"images/{number % 12}.png"]}
        lines.append(json.dumps({**row, "text": f"<image>\n{text} <|__dj__eoc|>", "extra": {"n": number}}))
    lines[7] = '{"id": broken}'
    lines[20] = json.dumps({"id": "0020", "images": ["images/none.png"], "text": "<image>\na b"})
    (folder / "d.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def recipe(data: Path) -> Callable[..., Recipe]:
    """recipe(process_yaml, **top_level_keys)"""

    def make(process: str, **keys: Any) -> Recipe:
        keys = {"dataset_path": str(data / "d.jsonl"), **keys}
        head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
        document = parse_yaml(head + "process:\n" + process, name="r.yaml")
        return build_recipe(document, base=data, check_steps=check_steps)

    return make
