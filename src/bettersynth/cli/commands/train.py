"""Train MGM in two stages, or one of them, under a track's fixed budget.

Running the same command again continues an interrupted training; a finished stage is not trained twice.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bettersynth.cli.render import print_facts, print_json
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``."""
    add = parser.add_argument
    add("--preset", help=t("track or YAML file: online, final, 10k, demo, solution"))
    add("--stage", choices=("1", "2", "both"), default="both", help=t("which stage (default: both)"))
    add("--pretrain-data", type=Path, metavar="JSON", help=t("stage-1 data in LLaVA form"))
    add("--pretrain-images", type=Path, metavar="DIR")
    add("--finetune-data", type=Path, metavar="JSON", help=t("stage-2 data in LLaVA form"))
    add("--finetune-images", type=Path, metavar="DIR")
    add("--model-zoo", type=Path, metavar="DIR", help=t("folder with LLM/ and OpenAI/"))
    add("--out", type=Path, default=Path("output"), help=t("output folder (default: output)"))
    add("--name", default="default", help=t("experiment name"))
    add("--init-from", type=Path, metavar="DIR", help=t("continue from this checkpoint (final track)"))
    add("--set", action="append", default=[], metavar="STAGE.KEY=VALUE", help=t("e.g. --set finetune.seed=7"))
    add("--from-env", action="store_true", help=t("take the kit's editable block from the environment"))
    add("--check-batch", nargs=3, type=int, metavar=("B", "A", "N"), help=t("only check B x A x N against --expected"))
    add("--expected", type=int, default=256, help=t("global batch for --check-batch"))
    add("--plan", action="store_true", help=t("say what would be done and what it needs; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def parse_overrides(words: list[str]) -> dict[str, dict[str, Any]]:
    """``["finetune.seed=7"]`` to ``{"finetune": {"seed": 7}}``; values are read as YAML."""
    import yaml

    overrides: dict[str, dict[str, Any]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        stage, dot, name = key.partition(".")
        if not (equals and dot and stage in ("pretrain", "finetune")):
            raise ConfigError(
                t("cannot read this setting"),
                where="--set",
                got=word,
                expected="pretrain.KEY=VALUE | finetune.KEY=VALUE",
            )
        overrides.setdefault(stage, {})[name] = yaml.safe_load(value)
    return overrides


def _from_env(args: argparse.Namespace, overrides: dict[str, dict[str, Any]]) -> None:
    """The train script's editable block (see the kit's train script) as settings."""

    def number(name: str) -> int | None:
        value = os.environ.get(name)
        if value is None:
            return None
        if not value.isdigit():
            raise ConfigError(t("not a whole number"), where=name, got=value)
        return int(value)

    args.name = os.environ.get("EXP_NAME", args.name)
    for prefix, stage in (("PRETRAIN", "pretrain"), ("FINETUNE", "finetune")):
        values = {
            "per_device_batch_size": number(f"{prefix}_BATCH_SIZE_PER_GPU"),
            "gradient_accumulation_steps": number(f"{prefix}_GRADIENT_ACCUMULATION_STEPS"),
            "workers": number(f"{prefix}_DATALOADER_NUM_WORKERS"),
            "logging_steps": number("LOGGING_STEP"),
            "save_steps": number("CKPT_SAVE_STEPS"),
            "save_total_limit": number("TOTAL_SAVE_CKPT_LIMIT"),
        }
        stage_values = overrides.setdefault(stage, {})
        for key, value in values.items():
            if value is not None:
                stage_values.setdefault(key, value)


def _inputs(args: argparse.Namespace) -> Any:
    from bettersynth.train.stages import TwoStageInputs

    needed = {"--preset": args.preset, "--model-zoo": args.model_zoo, "--finetune-data": args.finetune_data}
    if args.stage == "1":
        needed = {"--preset": args.preset, "--model-zoo": args.model_zoo, "--pretrain-data": args.pretrain_data}
    missing = [flag for flag, value in needed.items() if value is None]
    if missing:
        raise ConfigError(
            t("needed: {flags}", flags=", ".join(missing)), hint=t("see: {command} --help", command="bettersynth train")
        )
    return TwoStageInputs(
        finetune_data=args.finetune_data or Path("-"),
        model_zoo=args.model_zoo,
        pretrain_data=args.pretrain_data,
        pretrain_images=args.pretrain_images,
        finetune_images=args.finetune_images,
    )


def run(args: argparse.Namespace) -> int:
    """Check, plan or train."""
    from bettersynth.core.budget import check_global_batch

    if args.check_batch:
        check_global_batch(*args.check_batch, args.expected)
        print(
            t(
                "{b} x {a} x {n} = {total}: right",
                b=args.check_batch[0],
                a=args.check_batch[1],
                n=args.check_batch[2],
                total=args.expected,
            )
        )
        return 0
    overrides = parse_overrides(args.set)
    if args.from_env:
        _from_env(args, overrides)
    if args.init_from is not None:
        for stage in ("pretrain", "finetune"):
            overrides.setdefault(stage, {}).setdefault("init_from", str(args.init_from))
    inputs = _inputs(args)
    if args.stage != "1" and args.pretrain_data is None:
        _choose_start(args, overrides)

    from bettersynth.train.stages import run_stage, stage_folder, two_stage_configs

    first, second = two_stage_configs(args.preset, inputs, out=args.out, name=args.name, overrides=overrides)
    stages = [(1, first)] if first is not None and args.stage in ("1", "both") else []
    stages += [(2, second)] if args.stage in ("2", "both") else []
    for _, config in stages:  # stage 2's mistakes are said before stage 1 has run for hours
        config.with_devices(int(os.environ.get("WORLD_SIZE", "1")))
    if args.plan:
        return _plan(args, stages)
    for stage, config in stages:
        artifact = run_stage(config, out=stage_folder(args.out, stage, args.name))
        facts = {"stage": stage, "folder": str(artifact.folder), "digest": artifact.digest, **shown(artifact)}
        print_json(facts) if args.json else print_facts(facts)
    return 0


def _choose_start(args: argparse.Namespace, overrides: dict[str, dict[str, Any]]) -> None:
    """Let stage 2 begin with the finished stage 1 of the same name; say so, or say that it begins with none.

    Raises:
        ConfigError: stage 1 of this name is there but not finished.
    """
    import sys

    from bettersynth.core.artifact import Artifact
    from bettersynth.train.stages import stage_folder

    stage_2 = overrides.setdefault("finetune", {})
    if stage_2.get("adapter") or stage_2.get("init_from"):
        return
    folder = stage_folder(args.out, 1, args.name)
    if not folder.is_dir():
        note = t(
            "no stage 1 called {name} in {out}: stage 2 begins with an untrained projector",
            name=args.name,
            out=args.out,
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


def shown(artifact: Any) -> dict[str, Any]:
    """The facts of a finished stage that are worth a line."""
    keys = (
        "rows",
        "rows_trained",
        "rows_rejected",
        "rows_sampled_out",
        "steps",
        "samples_seen",
        "mean_loss",
        "last_loss",
    )
    shown = {key: artifact.facts[key] for key in keys if key in artifact.facts}
    return {**shown, "wall_s": artifact.run.get("wall_s"), "cpu_s": artifact.run.get("cpu_s")}


def _plan(args: argparse.Namespace, stages: list[tuple[int, Any]]) -> int:
    from dataclasses import asdict

    from bettersynth.train.plan import plan_stage
    from bettersynth.train.stages import stage_folder

    plans = [asdict(plan_stage(config, out=stage_folder(args.out, stage, args.name))) for stage, config in stages]
    if args.json:
        print_json(plans)
    else:
        for plan in plans:
            memory = plan.pop("memory_bytes")
            print_facts({**plan, **{f"memory {part}": f"{size / 2**20:,.1f} MiB" for part, size in memory.items()}})
            print()
    return 0
