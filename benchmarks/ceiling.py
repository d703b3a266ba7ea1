"""What two processes can gain on this machine at all: the same work on rows, in processes that share nothing.

    python -m benchmarks.ceiling RECIPE FIRST SHARDS        one of the processes; waits for a line on its input

Each process reads its own shards of the recipe's data and puts them through the recipe's operators as a worker does,
up to the first decision over all rows, with nothing written, nobody to wait for and no start counted. Where two such
processes at once take longer than one of them alone, the machine is the reason: threads of one core, shared caches,
shared memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MOST_ROWS = 40_000
"""Rows that each of the two works on, at most: enough for seconds of work."""


def run_pair(recipe: Path, shards: int, env: Mapping[str, str], *, at_once: bool) -> dict[str, float]:
    """Wall and CPU seconds of two processes that work on ``shards`` shards each, at once or one after the other."""
    places = (0, shards)
    command = [sys.executable, "-m", "benchmarks.ceiling", str(recipe)]
    root = Path(__file__).parents[1]
    children = [
        subprocess.Popen(
            [*command, str(first), str(shards)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=root
        )
        for first in places
    ]
    try:
        for child in children:
            _answer(child)  # it has read its operators and waits
        started, cpu = time.perf_counter(), 0.0
        for group in [children] if at_once else [[child] for child in children]:
            for child in group:
                assert child.stdin is not None  # a pipe, see above
                child.stdin.write(b"go\n")
                child.stdin.flush()
            cpu += sum(_answer(child)["cpu_s"] for child in group)
        return {"wall_s": round(time.perf_counter() - started, 3), "cpu_s": round(cpu, 3)}
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _answer(child: subprocess.Popen[bytes]) -> dict[str, float]:
    assert child.stdout is not None  # a pipe, see above
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a process of the ceiling ended early")
    found: dict[str, float] = json.loads(line)
    return found


def gain(runs: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Ratios of the best of both ways, with all runs. ``runs``: results of :func:`run_pair` by way."""
    best = {way: min(found, key=lambda run: run["wall_s"]) for way, found in runs.items()}
    alone, both = best["one_after_the_other"], best["at_once"]
    return {
        "wall_gain": round(alone["wall_s"] / both["wall_s"], 2),
        "cpu_ratio": round(both["cpu_s"] / alone["cpu_s"], 2),
        "runs": dict(runs),
    }


def shards_each(recipe: Path) -> int:
    """How many shards each of the two gets, so that it has seconds of work and no more."""
    source = _planned(recipe)[1]
    rows = max(shard.span.lines for shard in source.shards)
    return max(1, min(len(source.shards) // 2, _MOST_ROWS // rows))


def _planned(recipe: Path) -> tuple[Any, Any]:
    from bettersynth.engine.plan import plan, read_recipe
    from bettersynth.engine.settings import read_options
    from bettersynth.engine.source import freeze

    planned = plan(read_recipe(recipe))
    return planned, freeze(
        planned.recipe.inputs(), work=recipe.parent / "ceiling", options=read_options(planned.recipe)
    )


def main() -> int:
    """Be one of the two processes: say ready, work on each line of input, say what it took."""
    from bettersynth.engine.jobs import ShardJob, StageJob
    from bettersynth.engine.local import rows_at_once
    from bettersynth.engine.settings import settings_of
    from bettersynth.engine.shard import ShardRun
    from bettersynth.formats.late_pandas import leave_pandas_out

    recipe, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    planned, source = _planned(recipe)
    leave_pandas_out()
    phases: list[Any] = []
    for phase in (phase for stage in planned.stages for phase in stage.phases):
        if phase.kind == "verdict":
            break
        phases.append(phase)
    settings = settings_of(planned.recipe, source)
    at_once = min(map(rows_at_once, planned.stages))  # as the executor does in its most careful stage
    stage = StageJob(0, tuple(phases), at_once, "", settings)
    ctx = settings.context()
    shards = [source.shards[place % len(source.shards)] for place in range(first, first + count)]
    ShardRun(stage, ShardJob(0, "", source=shards[0]), ctx).run()  # imports, tables
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        for shard in shards:
            ShardRun(stage, ShardJob(shard.number, "", source=shard), ctx).run()
        print(json.dumps({"cpu_s": time.process_time() - started}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
