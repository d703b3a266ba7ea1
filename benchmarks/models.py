"""Speed of training and evaluation, same answers: ``python -m benchmarks.models {train,switches,eval,gpu}``.

``train``: both stages in the original's plain, padded way (``original_mgm.py``) and by us, in turn, on the golden set's
model and on a random one of a hundred million parameters: samples per CPU second, memory, how far the losses differ.

``switches``: ours against ours: padded batches; the feature cache cold and warm, whose losses must be equal to the bit;
packed batches, whose losses differ by rounding.

``eval``: questions on pictures, four per picture as MMBench's rotations are, exactly 16 new tokens each, on the golden
set's checkpoint. One side is a plain loop as the original has it (one question at a time, its picture opened,
prepared and encoded again every time, logits at every position), the other ours. Token ids must be equal.

``gpu``: both stages at MGM-2B's true shapes with random weights on the device there is (``mgm_gpu.py``).

CPU seconds of a process in one thread; the torch import and loading are left out on every side.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.pictures import draw

ZOO = Path(__file__).parents[1] / "tests" / "golden" / "data" / "mgm_a"
RESULTS = Path(__file__).parent / "results"
NEW_TOKENS = 16
ROTATIONS = 4
ROUNDS = 2
Facts = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def evaluation(folder: Path, size: int) -> Facts:
    """Batched against one at a time."""
    import torch

    from benchmarks.original_mgm import PlainAnswers
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
    plain = PlainAnswers(model.model, model.processor)
    model.generate(requests[:2], decoding)  # first-use costs fall to no side
    torch.manual_seed(0)
    sides: dict[str, Callable[[], Any]] = {
        "plain": lambda: [plain.answer(request, NEW_TOKENS) for request in requests],
        "ours": lambda: [list(one.token_ids) for one in model.generate(requests, decoding)],
        "letters": lambda: model.generate(
            [ChatRequest(r.key, r.prompt, r.image, tuple("ABCD")) for r in requests], decoding
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            spent, found[name] = timed(side)
            seconds[name].append(spent)
    best = {name: min(spent) for name, spent in seconds.items()}
    return {
        "questions": len(requests),
        "asked": "10 times the samples per CPU second, equal ids",
        "plain_per_cpu_s": round(len(requests) / best["plain"], 1),
        "ours_per_cpu_s": round(len(requests) / best["ours"], 1),
        "ratio": round(best["plain"] / best["ours"], 2),
        "letters_per_cpu_s": round(len(requests) / best["letters"], 1),
        "same_ids": found["plain"] == found["ours"],
    }


def _data(folder: Path, size: int) -> Path:
    rows = []
    for number, path in enumerate(draw(folder / "pictures", size)):
        answer = "a picture of noise " * (1 + number % 5)
        turns = [{"from": "human", "value": "<image>\nwhat is this?"}, {"from": "gpt", "value": answer.strip()}]
        rows.append({"id": str(number), "image": f"pictures/{path.name}", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "data.json"


def switches(folder: Path, size: int) -> Facts:
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


def training(folder: Path, size: int) -> Facts:
    """The original's way and ours; ``size``: samples of the golden set's model, a sixteenth of it of the middle one."""
    from benchmarks.mgm_training import MIDDLE, TINY, measure

    tiny = replace(TINY, samples=size, tracked=min(size, TINY.tracked))
    middle = replace(MIDDLE, samples=max(8, size // 16))
    facts: Facts = {"asked": "1.3 times as fast, target 2.5; 0.75 of the memory, target 0.5; equal losses"}
    for one in (tiny, middle):
        facts[one.name] = measure(folder, one)
    return facts


def gpu(_: Path, size: int) -> Facts:
    """MGM-2B's shapes; ``size``: the largest micro-batch."""
    from benchmarks.mgm_gpu import measure

    return measure(micro_batches=tuple(dict.fromkeys((max(1, size // 2), size))))


NAMES: Mapping[str, tuple[Callable[[Path, int], Facts], int]] = {
    "train": (training, 256),
    "switches": (switches, 48),
    "eval": (evaluation, 64),
    "gpu": (gpu, 32),
}


def main() -> int:
    """Run one benchmark, print its facts and keep them."""
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--size", type=int, help="questions, training rows, or the largest micro-batch (gpu)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    work, size = NAMES[given.name]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        facts = work(Path(folder), given.size or size)
    facts = {"torch": torch.__version__, "threads": 1, **facts}
    text = json.dumps(facts, indent=1)
    print(text)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / f"models-{given.name}.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
