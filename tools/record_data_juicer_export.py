"""Run the exported strategy files with plain Data-Juicer and store the rows it writes, for the default test suite.

    python tools/record_data_juicer_export.py PYTHON

PYTHON has Data-Juicer 1.6.1. Models are the fakes: the rows are about the export and not about models.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "unit" / "cli" / "data_juicer_export_rows.json"
STRATEGIES = ("quality_focused", "diversity_focused", "advanced_data_processing")
VARIABLES: dict[str, str | int | float] = {"scorer": "fake", "captioner": "fake", "model_zoo": "/none", "budget": 40}
_WORDS = [
    "a",
    "red",
    "blue",
    "green",
    "dog",
    "house",
    "says",
    "STOP",
    "OPEN",
    "left",
    "right",
    "&amp;",
    "café",
    "www.site.org/x",
    "<b>bold</b>",
    "“sign”",
    "!!",
]


def make_data(folder: Path) -> Path:
    """Thirty rows over twelve small pictures; one picture is missing, and both spellings of the image token occur."""
    import numpy as np
    from PIL import Image

    draw = random.Random(3)
    (folder / "images").mkdir(parents=True)
    for number in range(12):
        small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40 + number, 40)).save(folder / "images" / f"{number}.png")
    rows = []
    for number in range(30):
        text = " ".join(draw.choices(_WORDS, k=draw.randint(2, 14)))
        token = "<image>" if number % 2 else "<__dj__image>"
        image = "none.png" if number == 20 else f"{number % 12}.png"
        row = {"id": f"{number:04d}", "images": [f"images/{image}"], "extra": {"n": number}}
        rows.append({**row, "text": f"{token}\n{text} <|__dj__eoc|>"})
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def plan_of(strategy: str, data: Path) -> Any:
    """The strategy on these rows, with fakes for models."""
    from bettersynth.engine.plan import plan, read_recipe

    path = ROOT / "src" / "bettersynth" / "experiment" / "strategies" / f"{strategy}.yaml"
    return plan(read_recipe(path, overrides=[f"dataset_path={data}"], variables=VARIABLES))


def run_data_juicer(python: str, folder: Path) -> list[dict[str, Any]]:
    """Rows that ``dj-process`` writes for an exported folder."""
    quiet = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet
    command = [python, "-m", "data_juicer.tools.process_data", "--config", "recipe.yaml"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return read(folder / "output" / "processed_data.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def essence(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """What is compared: id, text, names of pictures, in order."""
    return [[row["id"], row["text"], [Path(path).name for path in row["images"]]] for row in rows]


def main() -> None:
    """Write the recorded rows."""
    from bettersynth.engine.export_data_juicer import export_data_juicer

    found = {}
    with tempfile.TemporaryDirectory() as temp:
        data = make_data(Path(temp) / "data")
        for strategy in STRATEGIES:
            folder = export_data_juicer(plan_of(strategy, data), Path(temp) / strategy).folder
            found[strategy] = essence(run_data_juicer(sys.argv[1], folder))
    lines = [f"{json.dumps(name)}: {json.dumps(rows, ensure_ascii=False)}" for name, rows in found.items()]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
