"""Both stages of MGM, trained in the original's plain way and by us: same weights, samples and order, one process each.

A side is a child process, so that its resident memory is its own. Speed is samples per CPU second of the training loop,
one thread, loading left out. Memory is measured in a run of its own, since looking at every tensor takes time: the most
bytes of tensors alive (``train/memory.py`` on both sides), and beside it the process's largest resident size.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import draw

ZOO = Path(__file__).parents[1] / "tests" / "golden" / "data" / "mgm_a"
Facts = dict[str, Any]
MICRO_BATCH = 8
WORDS = ("red", "boat", "two", "left", "sign", "a", "the", "of", "picture", "noise", "green", "below")
OURS: Mapping[str, Mapping[str, Any]] = {
    "ours": {"packing": True, "gradient_checkpointing": True},
    "ours, nothing recomputed": {"packing": True},
    "ours, towers' features kept": {"packing": True, "feature_cache": "cache"},
}
"""Our switches. The last one is measured with the features of all pictures on disk, as a second epoch or stage is."""


@dataclass(frozen=True)
class Size:
    """A model to be measured.

    Attributes:
        samples: in a run for speed; ``tracked``: in one for memory.
        rounds: runs for speed on each side, of which the fastest counts.
        picture: width and height of the JPEGs.
    """

    name: str
    samples: int
    tracked: int
    rounds: int
    picture: tuple[int, int]
    micro_batch: int = MICRO_BATCH


TINY = Size("tiny", 256, 32, 3, (320, 240))
MIDDLE = Size("middle", 16, 8, 1, (640, 480), micro_batch=4)
SIZES = {size.name: size for size in (TINY, MIDDLE)}


def checkpoint_of(size: str, folder: Path) -> Path:
    """The weights that both sides start from: the golden set's, or random ones of about a hundred million."""
    if size == "tiny":
        return ZOO / "checkpoint"
    import torch

    from bettersynth.models.mgm.config import MgmConfig
    from bettersynth.models.mgm.family import FAMILY
    from bettersynth.models.mgm.model import MgmModel

    out = folder / size
    if not (out / "config.json").exists():
        fields = {
            **json.loads((ZOO / "checkpoint" / "config.json").read_bytes()),
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "head_dim": 64,
            "vocab_size": 65536,
            "image_size_aux": 384,
            "mm_hidden_size": 384,
            "mm_hidden_size_aux": 1440,
        }
        vision = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 6}
        vision |= {"num_channels": 3, "image_size": 168, "patch_size": 14, "hidden_act": "quick_gelu"}
        torch.manual_seed(0)
        model = MgmModel(MgmConfig(fields, vision, (3, 3, 9, 3), (96, 192, 384, 768)).check())
        model.tokenizer_folder = str(ZOO / "checkpoint")
        out.mkdir(parents=True)
        FAMILY.save_checkpoint(model, out, dtype=torch.float32)
    return out


def write_data(folder: Path, size: Size) -> Path:
    """Questions and answers of different lengths; a quarter of the samples has no picture."""
    rng = np.random.default_rng(2)
    pictures = draw(folder / "pictures", size.samples, size.picture)
    rows: list[Facts] = []
    for number, path in enumerate(pictures):
        words = int(np.clip(rng.lognormal(2.6, 0.7), 2, 60))
        answer = " ".join(rng.choice(WORDS, words))
        is_text = number % 4 == 3
        question = "what is this?" if is_text else "<image>\nwhat is this?"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        rows.append({"id": str(number), "conversations": turns} | ({} if is_text else {"image": path.name}))
    place = folder / "data.json"
    place.write_text(json.dumps(rows), encoding="utf-8")
    return place


# ---------------------------------------------------------------- one side, in a process of its own


def _config(job: Mapping[str, Any]) -> Any:
    from bettersynth.config.train import stage_config

    settings = {
        "stage": job["stage"],
        "data": job["data"],
        "image_root": job["images"],
        "init_from": job["checkpoint"],
        "lr": 1e-3 if job["stage"] == 1 else 2e-5,
        "samples_seen": job["samples"],
        "global_batch": 2 * job["micro_batch"],
        "per_device_batch_size": job["micro_batch"],
        "loss_normalization": "micro_batch",
        "group_by_modality_length": job["stage"] == 2,
        "image_aspect_ratio": "square" if job["stage"] == 1 else "pad",
        "image_size_aux": job["image_size_aux"],
        "max_length": 2048,
        "seed": 1,
        "workers": 1,
        "logging_steps": 1,
        "save_steps": 10**6,
        "track_memory": job["is_tracked"],
        **job["switches"],
    }
    return stage_config(settings)


def ours(job: Mapping[str, Any]) -> Facts:
    """Our trainer."""
    from bettersynth.train.callbacks import Callback, read_log
    from bettersynth.train.stages import run_stage

    with tempfile.TemporaryDirectory(dir=job["folder"]) as out:
        artifact = run_stage(_config(job), out=Path(out), progress=Callback())
        losses = [line["loss"] for line in read_log(Path(out) / "train_log.jsonl")]
    run = artifact.run
    return {"losses": losses, "cpu_s": run["training_cpu_s"], "peak_tensor_bytes": run.get("peak_tensor_bytes")}


def original(job: Mapping[str, Any]) -> Facts:
    """The plain way, over the samples that our sampler would take."""
    import torch

    from benchmarks.original_mgm import PlainData, PlainMgm, train
    from bettersynth.formats.llava import to_conversation
    from bettersynth.models.mgm.family import FAMILY
    from bettersynth.train.data import prepare
    from bettersynth.train.prepare import build_processor
    from bettersynth.train.sampler import micro_batches
    from bettersynth.train.trainer import order_spec

    config = _config(job | {"switches": {}}).with_devices(1)
    model = FAMILY.load_checkpoint(Path(job["checkpoint"]), dtype=torch.float32)
    processor = build_processor(config, FAMILY, model)
    kept = prepare(config, processor)
    spec = order_spec(config, kept)
    order = kept.order(spec)
    plan = [micro_batches(order, spec, step) for step in range(spec.steps)]
    records = json.loads(Path(job["data"]).read_bytes())
    records = [records[row] for row in kept.examples.rows]
    plain = PlainMgm(model.config)
    plain.load_state_dict(model.state_dict(), strict=True)
    sizes = (model.config.image_size_aux, model.config.image_size_low)
    pad_id = processor.tokenizer.pad_id
    del model
    data = PlainData(
        lambda record: processor.encode(to_conversation(record)),
        *(records, Path(job["images"]), config.image_aspect_ratio, sizes),
    )
    plain.recompute()
    found: Facts = {}
    watch = _watch(found) if job["is_tracked"] else None
    losses, cpu_s = train(plain, data, plan, stage=config.stage, lr=config.lr, pad_id=pad_id, watch=watch)
    return {"losses": losses, "cpu_s": cpu_s, "peak_tensor_bytes": found.get("peak_tensor_bytes")}


def _watch(found: Facts) -> Any:
    from types import SimpleNamespace

    from bettersynth.train.memory import measured

    def watch(model: Any, trained: Any, optimizer: Any) -> AbstractContextManager[Any]:
        training = SimpleNamespace(model=model, trained=trained, parameters=trained, optimizer=optimizer)
        return _filling(found, measured(training, is_tracked=True))

    return watch


class _filling:  # noqa: N801 - used as a function
    def __init__(self, found: Facts, inner: AbstractContextManager[Facts]) -> None:
        self.found, self.inner = found, inner

    def __enter__(self) -> None:
        self.facts = self.inner.__enter__()

    def __exit__(self, *details: Any) -> None:
        self.inner.__exit__(*details)
        self.found.update(self.facts)


def side(job: Mapping[str, Any]) -> Facts:
    """Run one side here: for speed as often as the job says, then for memory."""
    import torch

    torch.set_num_threads(1)
    work = original if job["side"] == "original" else ours
    runs = [work(job | {"is_tracked": False}) for _ in range(job["rounds"])]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {"losses": runs[0]["losses"], "cpu_s": [run["cpu_s"] for run in runs], "peak_rss_bytes": rss}
    if job["tracked"]:
        memory = work(job | {"samples": job["tracked"], "is_tracked": True})
        facts["peak_tensor_bytes"] = memory["peak_tensor_bytes"]
    return facts


def in_process(job: Mapping[str, Any]) -> Facts:
    """Run one side in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.mgm_training", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{job['side']}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# ---------------------------------------------------------------- all of them


def measure(folder: Path, size: Size, *, stages: Sequence[int] = (1, 2), run: Any = in_process) -> Facts:
    """All sides of one model in turn."""
    checkpoint = checkpoint_of(size.name, folder)
    aux = json.loads((checkpoint / "config.json").read_bytes())["image_size_aux"]
    here = folder / f"{size.name} data"
    here.mkdir()
    data = write_data(here, size)
    facts: Facts = {}
    for stage in stages:
        base = {"stage": stage, "data": str(data), "images": str(here / "pictures"), "folder": str(here)}
        base |= {"checkpoint": str(checkpoint), "image_size_aux": aux, "micro_batch": size.micro_batch}
        base |= {"samples": size.samples, "rounds": size.rounds, "tracked": size.tracked}
        sides: dict[str, Facts] = {"original": {}, **{name: dict(switches) for name, switches in OURS.items()}}
        found: dict[str, Facts] = {}
        for name, switches in sides.items():
            if "feature_cache" in switches:
                switches["feature_cache"] = str(here / "features")
                run(base | {"side": name, "switches": switches, "rounds": 1, "tracked": 0})  # leaves the features there
            found[name] = run(base | {"side": name, "switches": switches})
            facts[f"stage {stage}, {name}"] = _row(size, found[name])
        _compare(facts, stage, found)
    return facts


def _row(size: Size, found: Facts) -> Facts:
    return {
        "samples_per_cpu_s": round(size.samples / min(found["cpu_s"]), 2),
        "peak_tensor_mb": round(found["peak_tensor_bytes"] / 1e6, 1),
        "peak_rss_mb": round(found["peak_rss_bytes"] / 1e6),
    }


def _compare(facts: Facts, stage: int, found: Mapping[str, Facts]) -> None:
    reference, expected = facts[f"stage {stage}, original"], found["original"]["losses"]
    for name in OURS:
        row, losses = facts[f"stage {stage}, {name}"], found[name]["losses"]
        row["times_as_fast"] = round(row["samples_per_cpu_s"] / reference["samples_per_cpu_s"], 2)
        row["share_of_memory"] = round(row["peak_tensor_mb"] / reference["peak_tensor_mb"], 2)
        row["largest_loss_difference"] = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
        row["steps"] = len(losses)


if __name__ == "__main__":
    print(json.dumps(side(json.loads(sys.argv[1]))))
