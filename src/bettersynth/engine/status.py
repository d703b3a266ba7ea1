"""What an output folder already holds of a plan. Reads markers and touches nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError
from bettersynth.core.lang import t
from bettersynth.engine.local import WORK
from bettersynth.engine.plan import Plan, unwrap
from bettersynth.engine.settings import read_options, stage_folders
from bettersynth.engine.source import find_files, stamp_of
from bettersynth.formats.remote import is_url

State = Literal["done", "part", "to do"]


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is: ``shards_done`` of ``shards`` (0 when no run has cut the input yet), and why the rest runs.

    Stages count from 1. Input files are not read here; that they changed is seen by their size and time. Changed
    pictures are noticed only by the run itself.
    """

    stage: int
    operators: tuple[str, ...]
    state: State
    shards_done: int
    shards: int
    reason: str


def status(planned: Plan, out: Path) -> list[StageStatus]:
    """One entry per stage; every stage is ``done`` when the next run has nothing to do."""
    shards = _num_shards(out / WORK / "source.json")
    changed = _changed_input(planned, out / WORK / "source.json")
    folders = out / WORK / "stages"
    has_run = folders.is_dir() and any(folders.iterdir())
    found: list[StageStatus] = []
    for stage, name in zip(planned.stages, stage_folders(planned), strict=True):
        markers = 0 if changed else len(list((folders / name).glob("*.json")))
        state: State = "done" if shards and markers == shards else "part" if markers else "to do"
        reason = t("kept from an earlier run") if state == "done" else t("not run yet")
        if state == "part":
            reason = t("an earlier run was interrupted here")
        elif state == "to do" and has_run:
            before = found[-1].state if found else "done"
            reason = t("operators, parameters or models changed") if before == "done" else t("follows a changed stage")
            reason = changed or reason
        operators = tuple(dict.fromkeys(unwrap(phase.operator).name for phase in stage.phases))
        found.append(StageStatus(stage.number + 1, operators, state, markers, shards, reason))
    return found


def is_finished(planned: Plan, out: Path) -> bool:
    """True when the folder holds a finished result of this plan (its input is assumed unchanged)."""
    return Artifact.exists(out) and all(stage.state == "done" for stage in status(planned, out))


def _changed_input(planned: Plan, path: Path) -> str:
    """Why the input is no longer the one of the last run, or empty text."""
    try:
        stamps = [
            _unplaced(stamp)
            for file in json.loads(path.read_text(encoding="utf-8"))["files"]
            for stamp in file["stamps"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    local = [Path(source.place) for source in planned.recipe.inputs() if not is_url(source.place)]
    options = read_options(planned.recipe)
    try:
        found = {_unplaced(stamp_of(file)) for place in local for file in find_files([place], options)}
    except BetterSynthError:
        return t("the input is gone")
    return "" if not local or (found <= set(stamps) and len(found) == len(set(stamps))) else t("the input changed")


def _unplaced(stamp: Sequence[Any]) -> tuple[str, int, int]:
    """Name, size and time of a file: a folder that was moved still holds the same input."""
    return Path(stamp[0]).name, stamp[1], stamp[2]


def _num_shards(path: Path) -> int:
    try:
        return len(json.loads(path.read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError, KeyError):
        return 0
