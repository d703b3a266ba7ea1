"""Joint training of texts and pictures with the training guide's flags: what ``train_unified_generation.py`` calls.

Started by ``python``, or by ``torchrun --nproc_per_node=N``. The same command again continues an interrupted training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors
from bettersynth.core.lang import set_language, t
from bettersynth.train.unified_flags import FLAGS, Flag, build_job

PROGRAM = "train_unified_generation.py"
_KINDS: dict[str, Callable[[str], Any]] = {"path": Path, "int": int, "float": float, "text": str}


def build_parser() -> argparse.ArgumentParser:
    """The script's flags; abbreviations and unknown ones are refused."""
    from bettersynth.cli.main import Help, Parser

    summary = t("Train BAGEL on texts and pictures jointly; the same command continues an interrupted training")
    usage = f"{PROGRAM} --model_path PATH --train_data_path PATH --output_dir PATH [options]"
    parser = Parser(prog=PROGRAM, usage=usage, description=summary, formatter_class=Help, allow_abbrev=False)
    for flag in FLAGS:
        _add(parser, flag)
    add = parser.add_argument
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=t("any other key, e.g. unified.dropout_text=0"))
    add("--plan", action="store_true", help=t("say what would be done and what it needs; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))
    return parser


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    shown = t(flag.help)
    if flag.kind == "switch":
        parser.add_argument(f"--{flag.name}", action="store_true", default=None, help=shown)
        return
    if flag.default is not None:
        shown += t(" (default: {value})", value=flag.default)
    options: dict[str, Any] = {"default": None, "help": shown}
    if flag.kind == "list":
        options |= {"nargs": "+", "metavar": "PART"}
    elif "|" in flag.kind:
        options["metavar"] = f"{{{flag.kind.replace('|', ',')}}}"
    else:
        options |= {"type": _or_as_written(_KINDS[flag.kind]), "metavar": flag.kind.upper()}
    parser.add_argument(f"--{flag.name}", **options)


def _or_as_written(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader that leaves what it cannot read to the settings' check, which tells it with all other mistakes."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            return text

    return read


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The words as flags; ``unknown`` holds those that are no flag."""
    parser = build_parser()
    args, rest = parser.parse_known_args(list(words))
    args.unknown = [word.partition("=")[0] for word in rest if word.startswith("-")]  # other words are their values
    if rest and not args.unknown:
        parser.error("unrecognized arguments: " + " ".join(rest))
    return args


def read_overrides(words: Sequence[str], problems: list[BetterSynthError]) -> dict[str, Any]:
    """``["unified.dropout_text=0"]`` to a mapping; values are read as YAML. What cannot be read joins the problems."""
    import yaml

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        try:
            if not equals:
                raise ValueError(word)
            found[key] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError):
            problem = ConfigError(t("cannot read this setting"), where="--set", got=word, expected="KEY=VALUE")
            problems.append(problem)
    return found


def run(args: argparse.Namespace) -> int:
    """Check, plan or train."""
    names = {flag.name for flag in FLAGS}
    flags = {name: value for name, value in vars(args).items() if name in names and value is not None}
    flags |= {word.lstrip("-"): True for word in args.unknown}
    problems: list[BetterSynthError] = []
    overrides = read_overrides(args.set, problems)
    try:
        build_job(flags, overrides)  # wrong flags and paths are told before torch is loaded
    except ConfigErrors as errors:
        problems += errors.problems
    if problems:
        raise ConfigErrors(problems)

    from bettersynth.cli.render import print_facts, print_json
    from bettersynth.cli.train_shown import show_plans, shown
    from bettersynth.train.unified_trainer import UnifiedTrainer

    trainer = UnifiedTrainer(overrides=overrides, **flags)
    if args.plan:
        plan = trainer.plan()
        if not args.json:
            return show_plans(args, [plan])
        print_json(asdict(plan))
        return 0
    artifact = trainer.train()
    facts = {"folder": str(artifact.folder), "digest": artifact.digest, **shown(artifact)}
    print_json(facts) if args.json else print_facts(facts)
    return 0


def run_preset(args: argparse.Namespace, overrides: dict[str, Any], problems: list[BetterSynthError]) -> int:
    """``bettersynth train`` with a preset of a family that is trained in one stage.

    Args:
        problems: mistakes that were found before.

    Raises:
        BetterSynthError: all mistakes of flags, places and settings together.
    """
    from bettersynth.cli.commands.train import noted
    from bettersynth.config.load import raise_all
    from bettersynth.train.preset import joint_preset_names, load_preset, stage_settings

    preset = None
    with noted(problems):
        preset = load_preset(args.preset) if args.preset else None
    if preset is None or not preset.joint:
        names = ", ".join(joint_preset_names())
        expected = t("one of: {names}", names=names)
        problems.append(ConfigError(t("--data needs a preset of joint training"), got=args.preset, expected=expected))
    if args.shapes is not None and not args.plan:
        problems.append(ConfigError(t("needed: {flags}", flags="--plan")))
    needed = () if args.shapes is not None else (("--data", args.data), ("--init-from", args.init_from))
    for flag, value in needed:
        if value is None:
            problems.append(ConfigError(t("needed: {flags}", flags=flag)))
        elif not value.exists():
            problems.append(ConfigError(t("not found"), where=flag, got=value))
    for flag, value in (("--val-data", args.val_data), ("--images", args.images)):
        if value is not None and not value.exists():
            problems.append(ConfigError(t("not found"), where=flag, got=value))
    if preset is None or not preset.joint:
        raise ConfigErrors(problems)
    settings = _nested(dict(preset.joint), overrides)
    places = {"data": args.data or Path("-"), "init_from": args.init_from or Path("-"), "image_root": args.images}
    if args.val_data is not None:
        places["val_data"] = args.val_data
    with noted(problems):
        config = stage_settings(preset, 2, {**settings, **places})
    raise_all(problems, where="bettersynth train")
    return _plan_shapes(args, config) if args.shapes is not None else _train_preset(args, config)


def _plan_shapes(args: argparse.Namespace, config: Any) -> int:
    """Plan by sizes, before there are records and weights."""
    from bettersynth.cli.train_shown import num_devices, show_plans
    from bettersynth.train.plan import plan_shapes

    return show_plans(args, [plan_shapes(config, args.shapes, num_devices=num_devices(args), tokens=args.plan_tokens)])


def _nested(settings: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``unified.KEY`` changes one key of a section and leaves the others as the preset has them."""
    for name, value in overrides.items():
        section, dot, key = name.partition(".")
        if dot:
            settings[section] = {**(settings.get(section) or {}), key: value}
        else:
            settings[section] = value
    return settings


def _train_preset(args: argparse.Namespace, config: Any) -> int:
    from bettersynth.cli.render import print_facts, print_json
    from bettersynth.cli.train_shown import num_devices, show_plans, shown
    from bettersynth.train.launch import choose_processes, launch
    from bettersynth.train.plan import plan_stage
    from bettersynth.train.stages import run_stage

    out = args.out / "training_dirs" / f"BAGEL-{args.name}"
    if args.plan:
        return show_plans(args, [plan_stage(config, out=out, num_devices=num_devices(args))])
    processes = choose_processes(args.processes, [config])
    if processes > 1:
        return launch(args.words, processes)
    artifact = run_stage(config, out=out)
    facts = {"stage": "joint", "folder": str(artifact.folder), "digest": artifact.digest, **shown(artifact)}
    print_json(facts) if args.json else print_facts(facts)
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit code (0 done, 1 failed, 2 wrong request, 130 interrupted)."""
    from bettersynth.cli.main import guard

    set_language(None)
    given = list(sys.argv[1:] if words is None else words)
    return guard(lambda: run(parse(given)), [PROGRAM, *given])


if __name__ == "__main__":
    sys.exit(main())
