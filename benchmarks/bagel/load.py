"""Host memory at load: each way in a process of its own, which says how much of it was ever resident.

The file holds bf16 weights as the public one does. The original's start of a training makes the float32 model with
random weights, a deep copy for the average, and reads the whole state dict beside them. Ours reads one tensor at a
time into a model that has no memory before.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.bagel.world import build
from bettersynth.models.bagel.config import load_config
from bettersynth.models.bagel.convert import load_checkpoint, save_checkpoint
from bettersynth.models.bagel.model import BagelModel
from bettersynth.train.ema import Average

Facts = dict[str, Any]
MIB = 2**20


def loading(folder: Path, layers: int) -> Facts:
    """Peaks of all ways, above what a process with the libraries alone holds."""
    model = build("mid", layers)
    save_checkpoint(model, folder, dtype=torch.bfloat16)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    del model
    facts: Facts = {
        "asked": "at most half of the plain way's peak",
        "parameters": numbers,
        "float32_model_mib": numbers * 4 // MIB,
    }
    base = _peak("nothing", folder)
    facts["libraries_mib"] = base // MIB
    peaks = {name: _peak(name, folder) - base for name in WAYS if name != "nothing"}
    for name, peak in peaks.items():
        facts[name] = {"peak_mib": peak // MIB, "ratio": round(peak / peaks["plain, training"], 2)}
    return facts


def _nothing(folder: Path) -> Any:
    """The libraries, and a small tensor's arithmetic."""
    return torch.ones(64, 64) @ torch.ones(64, 64)


def _plain(folder: Path) -> Any:
    model = BagelModel(load_config(folder))
    average = copy.deepcopy(model)
    state = load_file(folder / "ema.safetensors")
    for one in (model, average):
        one.load_state_dict(state)
    return model, average


def _ours(folder: Path) -> Any:
    return load_checkpoint(folder, dtype=torch.float32)


def _ours_with_average(folder: Path) -> Any:
    model = load_checkpoint(folder, dtype=torch.float32)
    return model, Average(list(model.named_parameters()), 0.99)


def _ours_inference(folder: Path) -> Any:
    return load_checkpoint(folder, dtype=torch.bfloat16)


def _ours_nf4(folder: Path) -> Any:
    return load_checkpoint(folder, dtype=torch.bfloat16, load_in="nf4")


WAYS: dict[str, Callable[[Path], Any]] = {
    "nothing": _nothing,
    "plain, training": _plain,
    "ours, training": _ours,
    "ours, training with an average": _ours_with_average,
    "ours, inference in bf16": _ours_inference,
    "ours, inference in nf4": _ours_nf4,
}


def _peak(way: str, folder: Path) -> int:
    """Bytes: the most that a process was resident with while it loaded that way."""
    words = [sys.executable, "-m", "benchmarks.bagel.load", way, str(folder)]
    # Freed memory goes back to the system at once, as it does by itself for tensors of the real sizes (over 32 MiB).
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], env=env)
    peak: int = json.loads(done.stdout.splitlines()[-1])["peak_bytes"]
    return peak


def main(words: list[str]) -> int:
    """Load one way and print the process's peak (``VmHWM``)."""
    torch.set_num_threads(1)
    held = WAYS[words[0]](Path(words[1]))
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"peak_bytes": peak}))
    del held
    sys.stdout.flush()
    os._exit(0)  # freeing a model tensor by tensor says nothing more


if __name__ == "__main__":
    main(sys.argv[1:])
