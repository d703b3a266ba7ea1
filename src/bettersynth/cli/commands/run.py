"""Take your own data through the whole loop: process, train, evaluate, report.

Works in a kit folder and writes where the kit expects it: WORKSPACE/output/{processed_data, training_dirs,
eval_results, report}. Every part continues where it stopped when the same command runs again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.kit import preset_of, save_train_script, track_of, typed_command, write_page
from bettersynth.cli.render import (
    Progress,
    print_accounting,
    print_comparison,
    print_facts,
    print_json,
    print_left_out,
    print_rows,
    print_scores,
    show_data_progress,
)
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth run --plan",
    "bettersynth run --strategy quality_focused --baseline --seeds 3",
    "bettersynth run data_only --strategy my_recipe.yaml --workspace my_kit",
)
PARTS = ("all", "data_only", "train_only", "eval_only")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``run``."""
    add = parser.add_argument
    add(
        "part",
        nargs="?",
        default="all",
        choices=PARTS,
        metavar="|".join(PARTS),
        help=t("the whole loop or one part (default: all)"),
    )
    add("--workspace", type=Path, default=Path(), metavar="DIR", help=t("kit folder (default: this one)"))
    add("--strategy", metavar="NAME", help=t("strategy or recipe file (default: advanced_data_processing)"))
    add("--pairs", type=Path, metavar="FILE", help=t("your own image-text pairs as the kit's seed set (JSONL or JSON)"))
    add("--images", type=Path, metavar="DIR", help=t("where the picture paths of --pairs start (default: beside it)"))
    add("--preset", metavar="NAME", help=t("training preset or YAML file (default: the kit's track)"))
    add("--name", default="", help=t("experiment name (default: the strategy's)"))
    add("--baseline", action="store_true", help=t("train on the raw seed set too, and compare"))
    add("--seeds", type=int, default=1, metavar="N", help=t("trainings with different seeds (default: 1)"))
    add("--tasks", nargs="+", default=["textvqa", "mmbench"], metavar="TASK", help=t("benchmarks (default: both)"))
    add("--split", choices=("eval", "dev"), default="eval", help=t("dev: toolkit/eval_dev, for tuning"))
    add("--limit", type=positive, metavar="N", help=t("only the first so many questions (marked in the result)"))
    add("--set", action="append", default=[], metavar="STAGE.KEY=VALUE", help=t("e.g. --set finetune.lr=1e-5"))
    add("--workers", type=positive, metavar="N", help=t("processes (default: all cores)"))
    add("--plan", action="store_true", help=t("say what would be done; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def read(args: argparse.Namespace) -> Any:
    """What was asked for, with everything that was left open filled in."""
    from bettersynth.cli.commands.train import parse_overrides
    from bettersynth.experiment.own import OwnRun, pick_seeds, pick_strategy

    if not args.workspace.is_dir():
        track = " --track open" if args.pairs else ""  # other tracks have a seed set of their own
        hint = t("make a kit with: bettersynth init {folder}", folder=f"{args.workspace}{track}")
        raise ConfigError(t("no such folder"), where="--workspace", got=args.workspace, hint=hint)
    if args.images and not args.pairs:
        raise ConfigError(t("{flag} needs {other}", flag="--images", other="--pairs"))
    preset = preset_of(args.workspace, args.preset)
    return OwnRun(
        workspace=args.workspace,
        strategy=pick_strategy(args.workspace, args.strategy),
        preset=preset,
        name=args.name,
        seeds=pick_seeds(preset, args.seeds),
        has_baseline=args.baseline,
        tasks=tuple(args.tasks),
        split=args.split,
        limit=args.limit,
        overrides=parse_overrides(args.set),
    )


def run(args: argparse.Namespace) -> int:
    """Plan, or do the part asked for."""
    own = read(args)
    if args.plan:
        from bettersynth.experiment.own import plan_rows

        rows = _plan_import(args) or plan_rows(own)
        if args.json:
            print_json([dict(zip(("part", "state", "detail"), row, strict=True)) for row in rows])
        else:
            print_rows((t("part"), t("state"), t("detail")), rows)
        return 0
    if args.pairs:
        _import(args)
    return {"all": _all, "data_only": _data, "train_only": _train, "eval_only": _evaluate}[args.part](args, own)


def _import(args: argparse.Namespace) -> None:
    from bettersynth.experiment.pairs import import_pairs

    Progress().done(import_pairs(args.pairs, args.images or args.pairs.parent, args.workspace, _rules(args)))


def _plan_import(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """What taking over ``--pairs`` would do; nothing when that is done, for then the rest can be planned."""
    from bettersynth.experiment.pairs import check_import, pair_rows

    if not args.pairs or check_import(args.pairs, args.images or args.pairs.parent, args.workspace, _rules(args)):
        return []
    rows, rejected = pair_rows(args.pairs)
    detail = t("{n} usable, {bad} not", n=len(rows), bad=len(rejected))
    way = "bettersynth run data_only --strategy raw --pairs …"
    return [
        (t("own pairs"), t("to do"), detail),
        (t("the rest"), t("to do"), t("can be planned when they are imported: {command}", command=way)),
    ]


def _rules(args: argparse.Namespace) -> Any:
    from bettersynth.config.submission import track_rules

    return track_rules(track_of(args.workspace) or "open")


def _data(args: argparse.Namespace, own: Any) -> int:
    from bettersynth.core.artifact import Artifact
    from bettersynth.engine.local import accounting_of
    from bettersynth.experiment.loop import make_data
    from bettersynth.experiment.run import budget_of

    progress = Progress()
    data = make_data(
        own.place,
        own.strategy,
        own.data_folder,
        budget=budget_of(own.preset),
        workers=args.workers,
        progress=show_data_progress(progress),
    )
    artifact = Artifact.load(own.data_folder, kind="dataset")
    if args.json:
        print_json(
            {"folder": str(own.data_folder), "llava": str(data.path), "digest": artifact.digest, **artifact.facts}
        )
        return 0
    print_accounting(accounting_of(artifact))
    print()
    print(t("{rows} rows in {path}", rows=artifact.facts["rows_out"], path=own.data_folder))
    print_left_out(artifact)
    return 0


def _train(args: argparse.Namespace, own: Any) -> int:
    from bettersynth.cli.train_shown import shown
    from bettersynth.experiment.own import train_only

    made = train_only(own)
    _note_script(own)
    facts = [{"folder": str(stage.folder), "digest": stage.digest, **shown(stage)} for stage in made]
    if args.json:
        print_json(facts)
        return 0
    for stage in facts:
        print_facts(stage)
        print()
    return 0


def _evaluate(args: argparse.Namespace, own: Any) -> int:
    from bettersynth.eval.score import load_results
    from bettersynth.experiment.own import evaluate_only

    found = evaluate_only(own, Progress().done)
    results = {name: [r for folder in folders for r in load_results(folder)] for name, folders in found.items()}
    print_scores(results, as_json=args.json)
    return 0


def _all(args: argparse.Namespace, own: Any) -> int:
    from dataclasses import asdict

    from bettersynth.experiment.own import check_training
    from bettersynth.experiment.run import run_experiment

    check_training(own)
    progress = Progress()
    outcome = run_experiment(
        own.config(), own.places(), overrides=own.overrides, workers=args.workers, say=progress.done
    )
    page = write_page(outcome, own.place.output / "report", title=own.condition, command=typed_command())
    _note_script(own)
    if args.json:
        print_json({"page": str(page), "output": str(own.place.output), **asdict(outcome.table)})
        return 0
    if len(outcome.table.results) > 1:
        print_comparison(outcome.table)
    else:
        print_scores(outcome.table.results, as_json=False)
    print()
    print_facts({t("report"): page, t("results"): own.place.output})
    return 0


def _note_script(own: Any) -> None:
    """Leave ``output/train.sh`` behind, which names the experiment that would be submitted."""
    from bettersynth.core.artifact import Artifact

    name = str(Artifact.load(own.data_folder, kind="dataset").facts["data"])
    save_train_script(
        own.workspace,
        {
            "EXP_NAME": f"{own.condition}-{min(own.seeds)}",
            "PRETRAIN_DATASET": f"../output/{own.data_folder.name}/{name}",
            "PRETRAIN_DATASET_IMAGE_PATH": f"../{own.place.seed_folder.relative_to(own.workspace).as_posix()}",
        },
    )
