"""What several commands need to know of a workspace: its track, its hidden truth if it is a demo, where pages go."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t


def typed_command() -> str:
    """The command as the user typed it, for reports."""
    return shlex.join(["bettersynth", *sys.argv[1:]])


def track_of(workspace: Path) -> str | None:
    """The track a kit was made for: from its record, else from the name of its seed set; None when unclear."""
    from bettersynth.config.submission import TRACKS
    from bettersynth.submission.locked_files import read_record

    record = read_record(workspace)
    if record is not None:
        return record.track
    fits = [rules.name for rules in TRACKS.values() if (workspace / rules.questions_file).is_file()]
    return "10k" if "10k" in fits else fits[0] if fits else None


def preset_of(workspace: Path, asked: str | None, flag: str = "--preset ") -> str:
    """The training preset: as asked for, else that of the kit's track.

    Args:
        flag: how the command is told a preset.

    Raises:
        ConfigError: none was given and the folder is missing or does not say its track.
    """
    if asked:
        return asked
    if not workspace.is_dir():
        hint = t("make a kit with: bettersynth init {folder}", folder=workspace)
        raise ConfigError(t("no such folder"), where="--workspace", got=workspace, hint=hint)
    track = track_of(workspace)
    if track is None:
        from bettersynth.train.preset import preset_names

        raise ConfigError(
            t("this folder does not say its track, so the training preset must be given"),
            where=str(workspace),
            expected=flag + " | ".join(preset_names()),
            hint=t("or make it a kit with: bettersynth init --adopt {folder}", folder=workspace),
        )
    return "solution" if track == "open" else track


def control_builders(config: Any) -> dict[str, Any]:
    """Data builders of the conditions that no recipe makes: no stage 1, and the demo world's true captions."""
    import json

    from bettersynth.demo.controls import control_builders as truth

    found: dict[str, Any] = {}
    world = Path(config.workspace) / "hidden" / "world.json"
    if world.is_file():
        facts = json.loads(world.read_text(encoding="utf-8"))
        found.update(truth(Path(config.workspace), pool=int(facts["sizes"]["pool"]), seed=int(facts["seed"])))
    found["none"] = _no_data
    wanted = {condition.name: condition.strategy or condition.name for condition in config.conditions}
    return {name: found[strategy] for name, strategy in wanted.items() if strategy in found}


def _no_data(_: Path) -> None:
    """Stage 1 is left out."""
    return None


def write_page(outcome: Any, out: Path, *, title: str, command: str) -> Path:
    """The report page of an experiment; in a demo world the filters' catch of the known noise is on it."""
    from bettersynth.experiment.run import report_input
    from bettersynth.media.thumbnail import thumbnail
    from bettersynth.report.build import PAGE, build_report

    root = Path(outcome.config.workspace).absolute()
    is_demo = (root / "hidden" / "world.json").is_file()
    page = report_input(outcome, title=title, command=command, is_demo=is_demo, datasets=_datasets(outcome, root))
    build_report(page, out, root=root, thumbnail=thumbnail)
    return out / PAGE


def _datasets(outcome: Any, root: Path) -> tuple[Any, ...]:
    from bettersynth.demo.quality import LABELS, filter_quality
    from bettersynth.experiment.summary import dataset_summary

    found = []
    for name in outcome.data_costs:
        folder = outcome.places.data_folder(name)
        known = filter_quality(folder, root) if (root / LABELS).is_file() and name == name.split("@")[0] else ()
        found.append(dataset_summary(folder, name=name, filter_quality=known, is_relative_to=root))
    return tuple(found)


def save_train_script(workspace: Path, values: Mapping[str, str | int]) -> Path | None:
    """Write ``output/train.sh`` as the kit's script does, so that the run can be submitted; None without a kit."""
    from bettersynth.submission.locked_files import read_record, record_data
    from bettersynth.submission.train_script import save_script

    record = read_record(workspace)
    if record is None or record.track == "open":
        return None
    record_data(workspace)
    return save_script(workspace, values, track=record.track)
