"""Train with real families in several processes; a script that imports everything once and forks (see serve)."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any


def kill_later(passes: int, delay_s: float) -> None:
    """SIGKILL some time after so many forward passes of this process, wherever it is then."""
    from bettersynth.train.trainer import Trainer

    forward, done = Trainer._forward, itertools.count(1)

    def counted(*arguments: Any) -> Any:
        if next(done) == passes:
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return forward(*arguments)

    Trainer._forward = counted  # type: ignore[method-assign]


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Train one stage; what a user would see of it. ``kill_at``: SIGKILL after that step, before it is saved."""
    from bettersynth.config.train import stage_config
    from bettersynth.core.errors import BetterSynthError
    from bettersynth.train.callbacks import Callback
    from bettersynth.train.stages import run_stage

    class Killer(Callback):
        def on_step(self, view: Any) -> None:
            if view.step == job.get("kill_at", 0):
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        artifact = run_stage(
            stage_config(job["settings"]), out=Path(job["out"]), progress=Callback(), callbacks=[Killer()]
        )
    except BetterSynthError as error:
        return {"error": error.render(), "code": error.exit_code}
    return {"digest": artifact.digest, "weights": artifact.facts["weights_digest"]}


def _child(asked: dict[str, Any], environment: dict[str, str], answer: Path) -> None:
    os.environ.update(environment)
    if asked["kill"] and environment.get("RANK", "0") == "0":
        kill_later(*asked["kill"])
    answer.write_text(json.dumps([run_job(job) for job in asked["jobs"]]))
    os._exit(0)


def serve() -> None:
    """Read rounds as JSON lines; answer with what each rank said, or its exit code.

    A round: ``{"jobs": [{"settings": ..., "out": ...}, ...], "ranks": [{ENVIRONMENT}, ...], "answers": FOLDER,
    "kill": null | [PASSES, SECONDS]}``. The ranks run side by side, each one job after the other; the first may be
    killed.
    """
    import bettersynth.models.bagel.family
    import bettersynth.models.mgm.family
    import bettersynth.train.sharding
    import bettersynth.train.stages  # noqa: F401 - imported before forking

    for line in sys.stdin:
        asked = json.loads(line)
        answers = [Path(asked["answers"]) / f"{rank}.json" for rank in range(len(asked["ranks"]))]
        children = []
        for environment, answer in zip(asked["ranks"], answers, strict=True):
            answer.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                _child(asked, environment, answer)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        said = [json.loads(a.read_text()) if a.exists() else c for a, c in zip(answers, codes, strict=True)]
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    serve()
