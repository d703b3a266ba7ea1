"""Compare data strategies under one budget, over several seeds, with intervals and ties.

Finished trainings are kept; running the same command again continues. Unequal budgets are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.kit import control_builders, preset_of, typed_command, write_page
from bettersynth.cli.render import Progress, print_comparison, print_facts, print_json, print_rows
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth compare experiment.yaml --plan",
    "bettersynth compare experiment.yaml --set 'seeds=[1,2,3]' --workers 2",
)
_REDRAWN = ("random_half", "cluster_uniform")
_USUAL = (*_REDRAWN, "quality_focused", "advanced_data_processing", "diversity_focused")
_OPEN = "balanced_with_qa"
SEEDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``compare``."""
    add = parser.add_argument
    add(
        "experiment",
        nargs="?",
        type=Path,
        metavar="EXPERIMENT.yaml",
        help=t("conditions, seeds, preset (default: the kit's strategies against its raw seed set, 5 seeds)"),
    )
    add("--workspace", type=Path, metavar="DIR", help=t("kit folder (default: the file's, else this one)"))
    add("--out", type=Path, metavar="DIR", help=t("result folder (default: WORKSPACE/output/experiments/NAME)"))
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=t("change a key, e.g. --set seed=7"))
    add("--workers", type=positive, metavar="N", help=t("trainings side by side (default: all cores; one on a GPU)"))
    add("--plan", action="store_true", help=t("say what would be done; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def read(args: argparse.Namespace) -> Any:
    """The experiment, with the workspace on the command line in place of the file's."""
    from bettersynth.config.experiment import ExperimentConfig, load_experiment
    from bettersynth.config.load import Document, apply_overrides, validate

    if args.experiment is None:
        named = [word.partition("=")[2] for word in args.set if word.startswith("preset=")]
        usual = Document("compare", usual_experiment(args.workspace or Path(), named[-1] if named else None))
        return validate(ExperimentConfig, apply_overrides(usual, args.set))
    config = load_experiment(args.experiment, args.set)
    workspace = args.workspace or config.workspace
    if not args.workspace and not workspace.is_absolute() and not workspace.exists():
        workspace = args.experiment.parent / workspace
    return config.model_copy(update={"workspace": workspace})


def usual_experiment(workspace: Path, preset: str | None = None) -> dict[str, Any]:
    """Every strategy that the kit or this version has, against the raw seed set, with the controls around them."""
    from bettersynth.experiment.loop import strategy_names
    from bettersynth.experiment.own import pick_seeds, pick_strategy
    from bettersynth.train.preset import load_preset

    preset = preset_of(workspace, preset, "--set preset=")
    loaded = load_preset(preset)
    count = 1 if loaded.locked and "seed" not in loaded.editable else SEEDS
    known = strategy_names()
    conditions: list[dict[str, Any]] = [
        {"name": "raw", "role": "baseline"},
        {"name": "none", "role": "reference", "note": t("stage 1 is left out")},
    ]
    for name in (*_USUAL, _OPEN):
        strategy = pick_strategy(workspace, name)
        if strategy != name or name in known:
            row = {"name": name, "strategy": strategy, "is_reseeded": name in _REDRAWN}
            conditions.append(
                row | ({"role": "open", "note": t("outside the challenge's rules")} if name == _OPEN else {})
            )
    if (workspace / "hidden" / "world.json").is_file():
        note = t("true captions, which no user has")
        conditions += [{"name": name, "role": "reference", "note": note} for name in ("clean_half", "clean")]
    return {
        "name": "strategies",
        "workspace": str(workspace),
        "preset": preset,
        "seeds": list(pick_seeds(preset, count)),
        "conditions": conditions,
    }


def run(args: argparse.Namespace) -> int:
    """Plan, or run what is missing and print the table."""
    from bettersynth.experiment.run import Places, run_experiment

    config = read(args)
    out = args.out or config.workspace / "output" / "experiments" / config.name
    places = Places(out)
    builders = control_builders(config)
    if args.plan:
        _show_plan(args, config, _plan(config, places, builders))
        return 0
    progress = Progress()
    outcome = run_experiment(config, places, builders=builders, workers=args.workers, say=progress.done)
    page = write_page(outcome, out / "report", title=config.name, command=typed_command())
    if args.json:
        from dataclasses import asdict

        print_json({"page": str(page), **asdict(outcome.table)})
        return 0
    print_comparison(outcome.table)
    print()
    print_facts({t("report"): page, t("results"): out / "comparison"})
    return 0


def _show_plan(args: argparse.Namespace, config: Any, rows: list[tuple[str, str, str, str]]) -> None:
    """Preset, budget of both stages and number of trainings, then the conditions."""
    from bettersynth.experiment.own import stage_budgets

    budgets = stage_budgets(config.preset)
    if args.json:
        keys = ("condition", "role", "data", "seeds")
        conditions = [dict(zip(keys, row, strict=True)) for row in rows]
        print_json({"preset": config.preset, "budget": budgets, "seeds": config.seeds, "conditions": conditions})
        return
    facts: dict[str, object] = {t("preset"): config.preset}
    facts |= {t("stage {n}", n=number): text for number, text in enumerate(budgets.values(), 1)}
    facts[t("seeds")] = " ".join(map(str, config.seeds))
    facts[t("trials")] = len(config.conditions) * len(config.seeds)
    print_facts(facts | {t("questions"): " ".join(config.tasks)})
    print()
    print_rows((t("condition"), t("role"), t("data"), t("seeds")), rows)


def _plan(config: Any, places: Any, builders: Any) -> list[tuple[str, str, str, str]]:
    """One line per condition; wrong recipes are refused here, before anything is trained."""
    from bettersynth.engine.plan import plan
    from bettersynth.experiment.loop import strategy_recipe
    from bettersynth.experiment.run import budget_of
    from bettersynth.experiment.trials import TRIAL
    from bettersynth.experiment.workspace import Workspace

    place, rows = Workspace(config.workspace), []
    for condition in config.conditions:
        if condition.name in builders:
            detail = t("made by a control, not by a recipe")
        else:
            recipe = strategy_recipe(place, condition.strategy or condition.name, budget=budget_of(config.preset))
            detail = " > ".join(dict.fromkeys(step.operator for step in plan(recipe).describe())) or t("as it is")
        done = [seed for seed in config.seeds if (places.trial_folder(condition.name, seed) / TRIAL).is_file()]
        rows.append((condition.name, t(condition.role), detail, f"{len(done)}/{len(config.seeds)} {t('done')}"))
    return rows
