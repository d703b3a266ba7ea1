"""What the weights of the two losses do: ``python -m benchmarks.bagel weights [--samples N] [--seeds N]``.

Trains the demo's tiny BAGEL, from the folder that ``python -m bettersynth.demo.bagel`` makes, with text and image loss
weighted 4:1, 1:1 and 1:4 and several seeds each, and measures both losses on held-out records, without weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine
from bettersynth.demo.bagel.__main__ import main as make_world
from bettersynth.train.callbacks import Callback, read_log
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

RESULTS = Path(__file__).parents[1] / "results"
WEIGHTS = ((4.0, 1.0), (1.0, 1.0), (1.0, 4.0))
LOSSES = ("text_loss", "image_loss")
Facts = dict[str, Any]


def trained(world: Path, out: Path, weights: tuple[float, float], seed: int, samples: int) -> Facts:
    """Held-out losses of the last weights of one training."""
    preset = load_preset("bagel_demo")
    joint = dict(preset.joint)
    unified = {
        **joint.pop("unified"),
        "text_loss_weight": weights[0],
        "image_loss_weight": weights[1],
        "ema_decay": 0.0,
    }
    places = {"data": str(world / "train.jsonl"), "init_from": str(world / "start"), "unified": unified}
    places |= {"val_data": str(world / "val.jsonl"), "eval_steps": 10**6}
    places |= {"feature_cache": str(world / "cache")}  # latents: made once for all runs, the same to the last bit
    config = stage_settings(preset, 2, {**joint, **places, "seed": seed, "samples_seen": samples, "save_steps": 10**6})
    done = run_stage(config, out=out, progress=Callback())
    last = read_log(out / "validation.jsonl")[-1]
    return {**{key: last[key] for key in LOSSES}, "cpu_s": round(float(done.run["cpu_s"]), 1)}


def main(words: Sequence[str]) -> int:
    """Train all, print a table, keep it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bagel weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--samples", type=int, default=2400, help="training samples of a run (default: 2400)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each weighting (default: 3)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where JSON goes")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    rows: list[Facts] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        world = Path(name)
        make_world([str(world), "--train", str(args.samples), "--val", "40"])
        for weights in WEIGHTS:
            label = f"{weights[0]:g}:{weights[1]:g}"
            runs = []
            for seed in range(args.seeds):
                runs.append(trained(world, world / f"{label}-{seed}", weights, seed, args.samples))
                print(label, seed, runs[-1], file=sys.stderr, flush=True)
            rows.append({"text:image": label, **_summary(runs)})
    facts: Facts = {"benchmark": "bagel-weights", "machine": machine(), "torch": torch.__version__}
    facts |= {"samples": args.samples, "seeds": args.seeds, "rows": rows}
    print(json.dumps(facts, indent=1))
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "bagel-weights.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


def _summary(runs: Sequence[Facts]) -> Facts:
    """Mean and standard deviation over seeds."""
    found: Facts = {}
    for key in LOSSES:
        values = [run[key] for run in runs]
        found[key] = round(statistics.mean(values), 3)
        found[f"{key}_sd"] = round(statistics.stdev(values), 3) if len(values) > 1 else None
    return {**found, "cpu_s_per_run": round(statistics.mean(run["cpu_s"] for run in runs), 1)}
