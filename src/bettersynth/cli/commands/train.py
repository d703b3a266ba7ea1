"""Train MGM in two stages, or one of them, under a fixed budget; or BAGEL on texts and pictures jointly.

Running the same command again continues an interrupted training; a finished stage is not trained twice.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import print_facts, print_json
from bettersynth.cli.train_shown import num_devices, show_plans, shown
from bettersynth.cli.train_start import check_start, choose_start, take_held_out
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors, DataError
from bettersynth.core.lang import t


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``."""
    add = parser.add_argument
    add("--preset", help=t("track or YAML file: online, final, 10k, demo, solution; bagel_demo, bagel_7b"))
    add("--stage", choices=("1", "2", "both"), default="both", help=t("which stage (default: both)"))
    add("--pretrain-data", type=Path, metavar="JSON", help=t("stage-1 data in LLaVA form"))
    add("--pretrain-images", type=Path, metavar="DIR")
    add("--finetune-data", type=Path, metavar="JSON", help=t("stage-2 data in LLaVA form"))
    add("--finetune-images", type=Path, metavar="DIR")
    add("--data", type=Path, metavar="RECORDS", help=t("records of texts and pictures (bagel_demo, bagel_7b)"))
    add("--val-data", type=Path, metavar="RECORDS", help=t("held-out records whose loss is logged"))
    add("--images", type=Path, metavar="DIR", help=t("folder of their pictures"))
    add("--model-zoo", type=Path, metavar="DIR", help=t("folder with LLM/ and OpenAI/"))
    add("--out", type=Path, default=Path("output"), help=t("output folder (default: output)"))
    add("--name", default="default", help=t("experiment name"))
    add("--init-from", type=Path, metavar="DIR", help=t("continue from this checkpoint (final track)"))
    add("--set", action="append", default=[], metavar="STAGE.KEY=VALUE", help=t("e.g. --set finetune.seed=7"))
    add("--from-env", action="store_true", help=t("take the kit's editable block from the environment"))
    add(
        "--check-batch",
        nargs=3,
        type=positive,
        metavar=("B", "A", "N"),
        help=t("only check B x A x N against --expected"),
    )
    add("--expected", type=positive, default=256, help=t("global batch for --check-batch"))
    add("--plan", action="store_true", help=t("say what would be done and what it needs; change nothing"))
    add("--shapes", metavar="SIZES", help=t("with --plan: plan for these model sizes, without data and weights"))
    add("--plan-tokens", type=positive, metavar="N", help=t("with --shapes: tokens of a sample, image tokens included"))
    add("--devices", type=positive, metavar="N", help=t("with --plan: devices that share the work"))
    add("--deepspeed", type=Path, metavar="JSON", help=t("carry out this DeepSpeed file's ZeRO stage and offloading"))
    add("--processes", type=positive, metavar="N", help=t("train in N processes (default: one per CUDA device)"))
    add("--json", action="store_true", help=t("print JSON"))


def parse_overrides(words: list[str]) -> dict[str, dict[str, Any]]:
    """``["finetune.seed=7"]`` to ``{"finetune": {"seed": 7}}``; values are read as YAML.

    Raises:
        ConfigError, ConfigErrors: words that cannot be read.
    """
    from bettersynth.config.load import raise_all

    problems: list[BetterSynthError] = []
    overrides = _read_overrides(words, problems)
    raise_all(problems, where="--set")
    return overrides


def _read_overrides(words: list[str], problems: list[BetterSynthError]) -> dict[str, dict[str, Any]]:
    """What can be read, as :func:`parse_overrides`; what cannot is added to the problems."""
    import yaml

    overrides: dict[str, dict[str, Any]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        stage, dot, name = key.partition(".")
        try:
            if not (equals and dot and stage in ("pretrain", "finetune", "joint")):
                raise ValueError
            overrides.setdefault(stage, {})[name] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError):
            expected = "pretrain.KEY=VALUE | finetune.KEY=VALUE | joint.KEY=VALUE"
            problems.append(ConfigError(t("cannot read this setting"), where="--set", got=word, expected=expected))
    return overrides


@contextmanager
def noted(problems: list[BetterSynthError]) -> Iterator[None]:
    """Go on after a mistake, so that all of them are said together."""
    try:
        yield
    except BetterSynthError as error:
        problems.extend(error.problems if isinstance(error, ConfigErrors) else [error])


def _from_env(args: argparse.Namespace, overrides: dict[str, dict[str, Any]], problems: list[BetterSynthError]) -> None:
    """The train script's editable block (see the kit's train script) as settings."""

    def number(name: str) -> int | None:
        value = os.environ.get(name)
        if value is not None and not value.isdigit():
            problems.append(ConfigError(t("not a whole number"), where=name, got=value))
            return None
        return None if value is None else int(value)

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


def _is_joint(preset: str | None) -> bool:
    if preset is None:
        return False
    from bettersynth.train.preset import load_preset

    return bool(load_preset(preset).joint)


def _missing_flags(args: argparse.Namespace) -> list[BetterSynthError]:
    from bettersynth.train.preset import load_preset

    try:
        load_preset(args.preset or "demo")
    except BetterSynthError:  # nobody knows which flags an unknown preset needs; that it is unknown is said elsewhere
        return []
    needed = {"--preset": args.preset, "--model-zoo": args.model_zoo, "--finetune-data": args.finetune_data}
    if args.stage == "1":
        needed = {"--preset": args.preset, "--model-zoo": args.model_zoo, "--pretrain-data": args.pretrain_data}
    missing = [flag for flag, value in needed.items() if value is None]
    if not missing:
        return []
    hint = t("see: {command} --help", command="bettersynth train")
    return [ConfigError(t("needed: {flags}", flags=", ".join(missing)), hint=hint)]


def _inputs(args: argparse.Namespace) -> Any:
    """Data and places; stand-ins where a flag is missing, for the settings to be checked nevertheless."""
    from bettersynth.train.stages import TwoStageInputs

    nothing = Path("-")
    return TwoStageInputs(
        finetune_data=args.finetune_data or nothing,
        model_zoo=args.model_zoo or nothing,
        pretrain_data=args.pretrain_data or (nothing if args.stage == "1" else None),
        pretrain_images=args.pretrain_images,
        finetune_images=args.finetune_images,
    )


def _missing_places(args: argparse.Namespace) -> list[BetterSynthError]:
    """Every named file and folder that is not there, found before seconds of loading."""
    from bettersynth.train.zoo import zoo_problems

    made_by = "bettersynth process, bettersynth convert dj-to-llava"
    problems: list[BetterSynthError] = [
        DataError(t("data file not found"), where=flag, got=path, hint=t("made by: {command}", command=made_by))
        for flag, path in (
            ("--pretrain-data", args.pretrain_data),
            ("--finetune-data", args.finetune_data),
            ("--val-data", args.val_data),
        )
        if path is not None and not path.is_file()
    ]
    problems += [
        DataError(t("no such folder"), where=flag, got=path)
        for flag, path in (("--pretrain-images", args.pretrain_images), ("--finetune-images", args.finetune_images))
        if path is not None and not path.is_dir()
    ]
    is_elsewhere = any(".bases" in word or ".init_from" in word for word in args.set)
    if args.model_zoo is not None and args.init_from is None and not is_elsewhere:
        problems += zoo_problems(args.model_zoo)
    return problems


def run(args: argparse.Namespace) -> int:
    """Check, plan or train."""
    from bettersynth.core.budget import check_global_batch

    if args.check_batch:
        check_global_batch(*args.check_batch, args.expected)
        b, a, n = args.check_batch
        if args.json:
            print_json(
                {
                    "per_device_batch_size": b,
                    "gradient_accumulation_steps": a,
                    "devices": n,
                    "global_batch": args.expected,
                }
            )
        else:
            print(t("{b} x {a} x {n} = {total}: right", b=b, a=a, n=n, total=args.expected))
        return 0
    problems: list[BetterSynthError] = []
    overrides, is_joint = _read_overrides(args.set, problems), args.data is not None
    with noted(problems):
        is_joint = is_joint or _is_joint(args.preset)
    if args.deepspeed is not None:
        for stage in ("joint",) if is_joint else ("pretrain", "finetune"):
            overrides.setdefault(stage, {}).setdefault("deepspeed", str(args.deepspeed))
    if is_joint:
        from bettersynth.cli.unified import run_preset

        problems += _other_stages(overrides, ("joint",))
        return run_preset(args, overrides.get("joint", {}), problems)
    if args.from_env:
        _from_env(args, overrides, problems)
    if args.init_from is not None:
        for stage in ("pretrain", "finetune"):
            overrides.setdefault(stage, {}).setdefault("init_from", str(args.init_from))
    with noted(problems):
        take_held_out(args, overrides)
    if args.shapes is not None:
        return _plan_shapes(args, overrides, problems)
    stages = _stages(args, overrides, problems)
    if args.plan:
        return _plan(args, stages)
    from bettersynth.train.launch import choose_processes, launch
    from bettersynth.train.stages import run_stage, stage_folder

    processes = choose_processes(args.processes, [config for _, config in stages])
    if processes > 1:
        return launch(args.words, processes)
    made = []
    for stage, config in stages:
        artifact = run_stage(config, out=stage_folder(args.out, stage, args.name))
        made.append({"stage": stage, "folder": str(artifact.folder), "digest": artifact.digest, **shown(artifact)})
        if not args.json:
            print_facts(made[-1])
    if args.json:
        print_json(made)
    return 0


def _stages(
    args: argparse.Namespace, overrides: dict[str, dict[str, Any]], problems: list[BetterSynthError]
) -> list[tuple[int, Any]]:
    """The settings of the stages that are asked for.

    Args:
        problems: mistakes that were found before.

    Raises:
        BetterSynthError: all mistakes of flags, places and both stages' settings together.
    """
    from bettersynth.config.load import raise_all
    from bettersynth.train.launch import count_devices
    from bettersynth.train.stages import two_stage_configs

    problems += [*_missing_flags(args), *_missing_places(args)]
    with noted(problems):
        if args.stage != "1" and args.pretrain_data is None and args.finetune_data is not None:
            choose_start(args, overrides)
        elif args.stage == "2":
            check_start(args)
    # Stage 2's mistakes are said with stage 1's, before that has run for hours.
    asked = {"1": (1,), "2": (2,), "both": (1, 2)}[args.stage]
    is_known = args.processes or args.devices or "WORLD_SIZE" in os.environ or count_devices() == 1
    devices = dict.fromkeys(asked, num_devices(args)) if is_known else {}
    configs: dict[int, Any] = {}
    with noted(problems):
        changes = {stage: overrides.get(stage, {}) for stage in ("pretrain", "finetune")}
        if args.preset is not None:
            first, second = two_stage_configs(
                args.preset, _inputs(args), out=args.out, name=args.name, overrides=changes, devices=devices
            )
            configs = {stage: config for stage, config in ((1, first), (2, second)) if config is not None}
    problems += _other_stages(overrides, ("pretrain", "finetune"))
    raise_all(_once(problems), where="bettersynth train")
    return [(stage, configs[stage]) for stage in asked if stage in configs]


def _other_stages(overrides: dict[str, dict[str, Any]], known: tuple[str, ...]) -> list[BetterSynthError]:
    unknown = sorted(set(overrides) - set(known))
    if not unknown:
        return []
    return [ConfigError(t("unknown stage"), where="--set", got=", ".join(unknown), expected=", ".join(known))]


def _once(problems: list[BetterSynthError]) -> list[BetterSynthError]:
    """A mistake that two checks found, such as an unknown preset, is said once."""
    return list({problem.body(): problem for problem in problems}.values())


def _plan(args: argparse.Namespace, stages: list[tuple[int, Any]]) -> int:
    from bettersynth.train.plan import plan_stage
    from bettersynth.train.stages import stage_folder

    places = {stage: stage_folder(args.out, stage, args.name) for stage, _ in stages}
    plans = [plan_stage(config, out=places[stage], num_devices=num_devices(args)) for stage, config in stages]
    return show_plans(args, plans)


def _plan_shapes(
    args: argparse.Namespace, overrides: dict[str, dict[str, Any]], problems: list[BetterSynthError]
) -> int:
    """Plan by a model's sizes: before there is anything but a preset.

    Raises:
        BetterSynthError: --plan or --preset is missing, settings are wrong, or see plan_shapes.
    """
    from bettersynth.config.load import raise_all
    from bettersynth.train.plan import plan_shapes
    from bettersynth.train.preset import load_preset, stage_settings

    missing = [flag for flag, value in (("--plan", args.plan), ("--preset", args.preset)) if not value]
    if missing:
        problems.append(ConfigError(t("needed: {flags}", flags=", ".join(missing))))
    places = {"data": "-", "model_zoo": "-"}
    names = {"1": ("pretrain",), "2": ("finetune",), "both": ("pretrain", "finetune")}[args.stage]
    numbers = {"pretrain": 1, "finetune": 2}
    configs = []
    for name in names:
        with noted(problems):
            if args.preset is not None:
                given = {**places, **overrides.get(name, {})}
                configs.append(stage_settings(load_preset(args.preset), numbers[name], given))
    raise_all(_once(problems), where="bettersynth train")
    plans = [plan_shapes(one, args.shapes, num_devices=num_devices(args), tokens=args.plan_tokens) for one in configs]
    return show_plans(args, plans)
