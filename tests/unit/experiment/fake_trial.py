"""Trial functions for tests; in a module of their own, so that another process can import them by name."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

from bettersynth.core.budget import Budget
from bettersynth.core.errors import ConfigError, RunInterrupted
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.record import EvalResult, Interval, StageCost
from bettersynth.experiment.trials import TrialResult

LEVELS = {"raw": 0.3, "same": 0.3, "good": 0.7, "ceiling": 0.8, "questions": 0.75}


def result(name: str, seed: int, *, questions: int = 200, level: float | None = None) -> TrialResult:
    """A trial whose answers are right with the condition's probability; ``letters`` is always at chance."""
    rng = random.Random(f"{name}{seed}")
    wanted = LEVELS[name] if level is None else level
    scores = {
        "textvqa-noocr": {str(q): float(rng.random() < wanted) for q in range(questions)},
        "mmbench-vanilla": {str(q): float(rng.random() < 0.25) for q in range(questions)},
    }
    results = []
    for protocol, given in scores.items():
        mean = 100 * sum(given.values()) / questions
        stamp = {key: digest_json([name, seed, protocol, key]) for key in ("checkpoint", "predictions")}
        stamp |= dict.fromkeys(("prompt", "decoding", "data"), "d" * 32) | {"protocol": protocol.partition("-")[0]}
        chance = 25.0 if protocol == "mmbench-vanilla" else 5.0
        interval = Interval(mean, mean - 5, mean + 5)
        results.append(
            EvalResult(
                stamp["protocol"], protocol, interval, questions, chance, "given", False, {"c": (mean, 9)}, stamp
            )
        )
    budgets = {"stage 1": Budget(800, 16), "stage 2": Budget(400, 16)}
    return TrialResult(scores, tuple(results), budgets, (StageCost("train", 2.0, 1.5),), facts={"rows": 7})


def run(condition: str, seed: int, folder: Path) -> TrialResult:
    """Leaves a mark of every call, with the process and its thread limit."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "calls.txt").open("a") as stream:
        stream.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
    return result(condition, seed)


def run_until_told(condition: str, seed: int, folder: Path) -> TrialResult:
    """Goes on until SIGTERM, which it takes for itself as a training does, and leaves its state."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "started").touch()
    stop.wait(60)
    (folder / "state").touch()
    raise RunInterrupted("interrupted after step 3")


def run_badly(condition: str, seed: int, folder: Path) -> TrialResult:
    """Seed 2 meets a user's mistake, seed 3 a bug, seed 4 takes its process down."""
    if (folder / "mended").exists():
        return result(condition, seed)
    if seed == 2:
        raise ConfigError("the recipe is wrong", where="recipe.yaml:1")
    if seed == 3:
        raise ZeroDivisionError("a bug")
    if seed == 4:
        os._exit(9)
    return run(condition, seed, folder)
