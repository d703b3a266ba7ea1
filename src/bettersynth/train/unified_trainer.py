"""A thin face of the one trainer for joint training of texts and pictures: the training guide's words."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.train.callbacks import Callback
from bettersynth.train.checkpoint import saved_states
from bettersynth.train.plan import StagePlan, plan_stage
from bettersynth.train.stages import RUN_FILE, run_stage
from bettersynth.train.unified_flags import UnifiedJob, build_job, find_state


class UnifiedTrainer:
    """Trains a BAGEL folder on records of texts and pictures.

    >>> UnifiedTrainer(model_path="models/none", train_data_path="x.jsonl", output_dir="out")
    Traceback (most recent call last):
    bettersynth.core.errors.ConfigErrors: 2 problems found
      1. model folder not found
           where: --model_path
           got: models/none
      2. data file not found
           where: --train_data_path
           got: x.jsonl

    Args:
        overrides: further settings of the stage, ``{"unified.dropout_text": 0.0}``.
        flags: the guide's flags by name, see :data:`bettersynth.train.unified_flags.FLAGS`.

    Raises:
        ConfigErrors: every wrong flag, path and value, in one error.
    """

    def __init__(self, *, overrides: Mapping[str, Any] | None = None, **flags: Any) -> None:
        self.job: UnifiedJob = build_job(flags, overrides)

    def plan(self, num_devices: int = 1) -> StagePlan:
        """What would be done, and what it needs; changes nothing."""
        return plan_stage(self.job.config, out=self.job.out, num_devices=num_devices)

    def train(self, *, progress: Callback | None = None, callbacks: Sequence[Callback] = ()) -> Artifact:
        """Train, or continue an interrupted training; returns the finished checkpoint folder.

        Raises:
            See :func:`bettersynth.train.stages.run_stage`.
        """
        if self.job.resume is not None:
            take_state(self.job.resume, self.job.out)
        return run_stage(self.job.config, out=self.job.out, progress=progress, callbacks=callbacks)


def take_state(path: Path, out: Path) -> None:
    """Let the next run into ``out`` continue from a state, of this folder or of another run.

    Raises:
        ConfigError: there is no such state, or ``out`` holds newer ones.
    """
    state = find_state(path)
    if state is None:
        raise ConfigError(t("no such training state"), where=str(path))
    if Artifact.exists(out):
        return  # finished: the run itself says so
    held = saved_states(out)
    if state.parent.resolve() == out.resolve() or (held and held[0].name == state.name):
        if held and held[0].name != state.name:
            raise ConfigError(
                t("the output folder holds a newer state"),
                where=str(held[0]),
                got=str(state),
                hint=t("leave the flag out to continue from the newest, or choose another output folder"),
            )
        return
    if held:
        raise ConfigError(
            t("the output folder holds states of its own"), where=str(out), hint=t("choose another output folder")
        )
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{state.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(state, temporary)
    if (state.parent / RUN_FILE).is_file():
        shutil.copyfile(state.parent / RUN_FILE, out / RUN_FILE)
    temporary.rename(out / state.name)
