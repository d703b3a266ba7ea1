"""What a stage begins with and what it is watched by: another stage's result, a checkpoint, held-out records."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t


def take_held_out(args: argparse.Namespace, overrides: dict[str, dict[str, Any]]) -> None:
    """Give ``--val-data`` to the one stage that is trained.

    Raises:
        ConfigError: there are two, whose records differ; or a flag of joint training is there without its data.
    """
    if args.images is not None:
        raise ConfigError(t("{flag} needs {other}", flag="--images", other="--data RECORDS"))
    if args.val_data is None:
        return
    if args.stage == "both" and args.pretrain_data is not None:
        raise ConfigError(t("{flag} needs {other}", flag="--val-data", other="--stage 1 | --stage 2"))
    overrides.setdefault("pretrain" if args.stage == "1" else "finetune", {})["val_data"] = str(args.val_data)


def check_start(args: argparse.Namespace) -> None:
    """Stage 2 alone, with stage 1's data named: it begins with the stage 1 of its name, which must be there.

    Raises:
        ConfigError: it is not, or is not finished.
    """
    from bettersynth.core.artifact import Artifact
    from bettersynth.train.stages import stage_folder

    folder = stage_folder(args.out, 1, args.name)
    if not Artifact.exists(folder):
        raise ConfigError(
            t("no finished stage 1 of this name"),
            where=str(folder),
            got=", ".join(_first_stages(args.out)) or t("none"),
            expected=t("the name of a finished stage 1"),
            hint=t("give its --name, or train it first: the same command with {flag}", flag="--stage 1"),
        )


def _first_stages(out: Path) -> list[str]:
    """Names of the finished first stages in an output folder."""
    from bettersynth.train.stages import stage_folder

    pattern = stage_folder(out, 1, "*")
    return sorted(
        path.parent.name.removeprefix(pattern.name.rstrip("*"))
        for path in pattern.parent.glob(f"{pattern.name}/manifest.json")
    )


def choose_start(args: argparse.Namespace, overrides: dict[str, dict[str, Any]]) -> None:
    """Let stage 2 begin with the finished stage 1 of the same name; say so, or say that it begins with none.

    Raises:
        ConfigError: stage 1 of this name is there but not finished.
    """
    from bettersynth.core.artifact import Artifact
    from bettersynth.train.stages import stage_folder

    stage_2 = overrides.setdefault("finetune", {})
    if stage_2.get("adapter") or stage_2.get("init_from"):
        return
    folder = stage_folder(args.out, 1, args.name)
    if not folder.is_dir():
        note = t(
            "warning: no stage 1 called {name} in {out}: stage 2 begins with an untrained projector; stage 1 is "
            "trained first with --pretrain-data; finished there: {there}",
            name=args.name,
            out=args.out,
            there=", ".join(_first_stages(args.out)) or t("none"),
        )
    elif not Artifact.exists(folder):
        raise ConfigError(
            t("stage 1 of this name is not finished"),
            where=str(folder),
            hint=t("finish it first with the command that began it (--stage 1), or choose another --name"),
        )
    else:
        stage_2["adapter"] = str(folder)
        note = t("stage 2 begins with the projector of {folder}", folder=folder)
    print(note, file=sys.stderr)
