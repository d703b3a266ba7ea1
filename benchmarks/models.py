"""Speed of training and evaluation, same answers: ``python -m benchmarks.models {eval,train} [--size N]``.

``eval``: questions on pictures, four per picture as MMBench's rotations are, exactly 16 new tokens each, on the tiny
checkpoint of the golden set. One side is a plain loop as the original has it (one question at a time, its picture
opened and encoded again every time), the other ours. Token ids must be equal.

``train``: both stages on drawn pictures and the golden set's bases: padded batches; the feature cache cold and warm,
whose losses must equal them bit for bit; packed batches, whose losses differ by rounding.

CPU seconds of this process in one thread; the torch import and loading are left out on every side.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ZOO = Path(__file__).parents[1] / "tests" / "golden" / "data" / "mgm_a"
RESULTS = Path(__file__).parent / "results"
NEW_TOKENS = 16
ROTATIONS = 4
Facts = dict[str, Any]


def draw(folder: Path, count: int) -> list[Path]:
    """JPEG pictures of smooth noise, 320 x 240."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def evaluation(folder: Path, size: int) -> Facts:
    """Batched against one at a time."""
    from bettersynth.core.sample import ImageRef
    from bettersynth.infer.checkpoint import CheckpointChatModel
    from bettersynth.infer.protocols import ChatRequest, Decoding

    options = ["red", "a large blue circle", "two", "nothing at all"]
    requests = []
    for number, path in enumerate(draw(folder, max(1, size // ROTATIONS))):
        for turn in range(ROTATIONS):
            shown = options[turn:] + options[:turn]
            lines = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", shown, strict=True))
            requests.append(ChatRequest(f"{number}-{turn}", f"What is shown here?{lines}", ImageRef(str(path))))
    decoding = Decoding(max_new_tokens=NEW_TOKENS)
    model = CheckpointChatModel(ZOO / "checkpoint", batch_size=32)
    model.processor.tokenizer.eos_id = -1  # nothing ends an answer: every question costs the same
    model.generate(requests[:2], decoding)  # first-use costs fall to neither side
    plain_s, plain = timed(lambda: [model.generate([request], decoding)[0] for request in requests])
    ours_s, ours = timed(lambda: model.generate(requests, decoding))
    letters = [ChatRequest(r.key, r.prompt, r.image, tuple("ABCD")) for r in requests]
    letters_s, _ = timed(lambda: model.generate(letters, decoding))
    return {
        "questions": len(requests),
        "asked": "10 times the samples per CPU second, equal ids",
        "plain_per_cpu_s": round(len(requests) / plain_s, 1),
        "ours_per_cpu_s": round(len(requests) / ours_s, 1),
        "ratio": round(plain_s / ours_s, 2),
        "letters_per_cpu_s": round(len(requests) / letters_s, 1),
        "same_ids": [one.token_ids for one in plain] == [one.token_ids for one in ours],
    }


def _data(folder: Path, size: int) -> Path:
    rows = []
    for number, path in enumerate(draw(folder / "pictures", size)):
        answer = "a picture of noise " * (1 + number % 5)
        turns = [{"from": "human", "value": "<image>\nwhat is this?"}, {"from": "gpt", "value": answer.strip()}]
        rows.append({"id": str(number), "image": f"pictures/{path.name}", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "data.json"


def training(folder: Path, size: int) -> Facts:
    """Padded, cached and packed in turn, both stages."""
    from bettersynth.config.train import stage_config
    from bettersynth.train.callbacks import Callback, read_log
    from bettersynth.train.stages import run_stage

    data = _data(folder, size)
    facts: Facts = {"samples": 2 * size}
    cache = folder / "cache"
    sides: Mapping[str, Facts] = {
        "padded": {},
        "cache cold": {"feature_cache": cache},
        "cache warm": {"feature_cache": cache},
        "packed": {"packing": True},
        "packed, cache warm": {"packing": True, "feature_cache": cache},
    }
    for stage in (1, 2):
        losses: dict[str, list[float]] = {}
        for name, changes in sides.items():
            config = stage_config(
                {
                    "stage": stage,
                    "data": data,
                    "model_zoo": ZOO / "model_zoo",
                    "lr": 1e-3,
                    "epochs": 2,
                    "per_device_batch_size": 16,
                    "image_size_aux": 128,
                    "max_length": 256,
                    "seed": 1,
                    "workers": 1,
                    "image_aspect_ratio": "pad",
                    **changes,
                }
            )
            out = folder / f"stage{stage} {name}"
            artifact = run_stage(config, out=out, progress=Callback())
            losses[name] = [line["loss"] for line in read_log(out / "train_log.jsonl")]
            cpu_s = artifact.run["training_cpu_s"]
            worst = max(abs(a - b) for a, b in zip(losses[name], losses["padded"], strict=True))
            facts[f"stage {stage}, {name}"] = {
                "samples_per_cpu_s": round(2 * size / cpu_s, 1),
                "largest_loss_difference": worst,
                "weights_digest": artifact.facts["weights_digest"],
            }
    return facts


def main() -> int:
    """Run one benchmark, print its facts and keep them."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("eval", "train"))
    parser.add_argument("--size", type=int, default=256, help="questions, or training rows")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        facts = {"eval": evaluation, "train": training}[given.name](Path(folder), given.size)
    facts = {"torch": torch.__version__, "threads": 1, **facts}
    text = json.dumps(facts, indent=1)
    print(text)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / f"models-{given.name}.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
