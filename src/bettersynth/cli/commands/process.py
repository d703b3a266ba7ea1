"""Run a data recipe: clean, filter, de-duplicate, re-caption, synthesise.

Every row is kept, dropped with a reason, or set aside with its error. Running the same command again continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bettersynth.cli.render import (
    Progress,
    print_accounting,
    print_json,
    print_left_out,
    print_rows,
    show_data_progress,
)
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.start import importing

EXAMPLES = (
    "bettersynth process recipe.yaml --out clean --plan",
    "bettersynth process quality_focused --workspace my_kit --set text_length_filter.min_len=20",
    "bettersynth process data_juicer_recipe.yaml --dataset_path rows.jsonl --text_length_filter.min_len 5",
)
DEFAULT_OUT = Path("output/processed_data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``process``."""
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help=t("recipe file, or a strategy's name (bettersynth explain strategies)"))
    add("-o", "--out", type=Path, metavar="DIR", help=t("result folder (default: the folder of export_path)"))
    add("--workspace", type=Path, metavar="DIR", help=t("kit folder whose seed set, pictures and models are used"))
    add("--budget", type=int, metavar="N", help=t("samples that training will see; {budget} in the recipe"))
    add("--var", action="append", default=[], metavar="NAME=VALUE", help=t("value of a {NAME} in the recipe"))
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=t("change a key, e.g. --set seed=7"))
    add("--np", type=int, metavar="N", help=t("processes (default: the recipe's np, else all cores)"))
    add("--engine", choices=("local", "ray"), help=t("where to run: here, or on Ray (default: the recipe's)"))
    add("--ray-address", metavar="ADDRESS", help=t("local, auto or HOST:PORT of a Ray cluster (default: local)"))
    add("--plan", action="store_true", help=t("check the recipe, say what is kept and what runs; change nothing"))
    add("--check", action="store_true", help=t("with --plan: exit code 1 when work remains"))
    add("--retry-quarantined", action="store_true", help=t("work again on rows that could not be processed"))
    add("--json", action="store_true", help=t("print JSON"))


def read(args: argparse.Namespace) -> Any:
    """The recipe with variables and overrides applied."""
    from bettersynth.config.load import raise_all
    from bettersynth.engine.plan import read_recipe
    from bettersynth.engine.preflight import preflight

    values: dict[str, str | int | float] = {} if args.budget is None else {"budget": args.budget}
    for word in args.var:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(t("cannot read this variable"), where="--var", got=word, expected="NAME=VALUE")
        values[name] = value
    if args.engine is not None:
        args.set += [f"executor_type={args.engine}", f"ray_address={args.ray_address or 'local'}"]
    if args.workspace is None and args.recipe.endswith((".yaml", ".yml")):
        file = Path(args.recipe)
        if file.is_file():  # no strategy by name, so that nothing of experiments is imported
            return read_recipe(file, overrides=args.set, variables=values, check_recipe=preflight)
    _check_is_recipe(Path(args.recipe))
    from bettersynth.experiment.loop import strategy_path, strategy_recipe
    from bettersynth.experiment.workspace import Workspace

    if args.workspace is not None:
        recipe = strategy_recipe(Workspace(args.workspace), args.recipe, overrides=args.set, values=values)
        raise_all(preflight(recipe), where=recipe.document.name)
        return recipe
    return read_recipe(strategy_path(args.recipe), overrides=args.set, variables=values, check_recipe=preflight)


def _check_is_recipe(place: Path) -> None:
    """Refuse a data file or a folder in the recipe's place.

    Raises:
        ConfigError: with the command that a recipe needs.
    """
    from bettersynth.formats.read import SUFFIXES

    is_data = place.name.endswith(SUFFIXES) and place.suffix != ".json"  # a recipe may be JSON
    if not place.exists() or not (is_data or place.is_dir()):
        return
    raise ConfigError(
        t("this is a data file, not a recipe") if place.is_file() else t("this is a folder, not a recipe"),
        where=str(place),
        expected=t("recipe file, or a strategy's name (bettersynth explain strategies)"),
        hint=t(
            "name the data in a recipe: {command}", command=f"bettersynth process RECIPE --set dataset_path={place}"
        ),
    )


def rewrite(words: Sequence[str]) -> list[str]:
    """Data-Juicer's spelling of overrides, ``--text_length_filter.min_len 5`` or ``--dataset_path x``, as ``--set``."""
    from bettersynth.cli.overrides import as_sets

    return as_sets(words, own=("--np", "--workspace"))


def run(args: argparse.Namespace) -> int:
    """Plan or process, then print the accounting."""
    if args.np is not None and args.np < 1:
        raise ConfigError(t("not a number of processes"), where="--np", got=args.np, expected=t("1 or more"))
    with importing():
        recipe = read(args)
    return run_recipe(args, recipe)


def run_recipe(args: argparse.Namespace, recipe: Any) -> int:
    """Plan or process a recipe that has been read."""
    from bettersynth.config.recipe import is_remote
    from bettersynth.engine.local import accounting_of, process
    from bettersynth.engine.plan import plan
    from bettersynth.formats.late_pandas import leave_pandas_out

    leave_pandas_out()  # the recipe has been read, and with it a user's own operators
    planned = plan(recipe)
    progress = Progress()
    for notice in planned.notices:
        progress.done(notice)
    export = recipe.keys.export_path
    out = args.out or (Path(export).expanduser().parent if export and not is_remote(export) else DEFAULT_OUT)
    if args.plan:
        from bettersynth.engine.status import is_finished, status

        _print_plan(planned, status(planned, out), as_json=args.json)
        return 1 if getattr(args, "check", False) and not is_finished(planned, out) else 0
    artifact = process(
        recipe,
        out=out,
        workers=args.np,
        progress=show_data_progress(progress),
        retry=getattr(args, "retry_quarantined", False),
    )
    progress.done(t("done: {rows} rows", rows=artifact.facts["rows_out"]))
    if not artifact.facts["rows_out"]:
        asked = t("see why with: bettersynth inspect {folder}", folder=out)
        why = asked if artifact.facts["rows_in"] else t("the input holds none")
        progress.done(t("warning: the result has no row ({why})", why=why))
    if args.json:
        print_json({"folder": str(out), "digest": artifact.digest, **artifact.facts, "run": artifact.run})
        return 0
    print_accounting(accounting_of(artifact))
    print()
    print(t("{rows} rows in {path}", rows=artifact.facts["rows_out"], path=out / str(artifact.facts["data"])))
    if artifact.facts["quarantined"]:
        path = out / "quarantine.jsonl"
        print(
            t(
                "{n} rows could not be processed; each with its error in {path}",
                n=artifact.facts["quarantined"],
                path=path,
            )
        )
    print_left_out(artifact)
    return 0


def _print_plan(planned: Any, stages: Any, *, as_json: bool) -> None:
    from dataclasses import asdict

    steps = [asdict(step) for step in planned.describe()]
    if as_json:
        listed = [asdict(stage) for stage in stages]
        print_json({"digest": planned.digest, "track": planned.recipe.keys.track, "steps": steps, "stages": listed})
        return
    rows = [(s["stage"], s["operator"], " ".join(f"{k}={v}" for k, v in s["params"].items()), s["note"]) for s in steps]
    print_rows((t("stage"), t("operator"), t("parameters"), t("note")), rows, ">")
    print()
    told = [(s.stage, t(s.state), f"{s.shards_done}/{s.shards}" if s.shards else "-", s.reason) for s in stages]
    print_rows((t("stage"), t("state"), t("shards"), t("why")), told, "><>")
