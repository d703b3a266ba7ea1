"""Run a data recipe: clean, filter, de-duplicate, re-caption, synthesise.

Every row is kept, dropped with a reason, or set aside with its error. Running the same command again continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.render import Progress, print_json, print_rows
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``process``."""
    add = parser.add_argument
    add("recipe", help=t("recipe file, or a strategy's name (bettersynth explain strategies)"))
    add("-o", "--out", type=Path, metavar="DIR", help=t("result folder (default: the folder of export_path)"))
    add("--workspace", type=Path, metavar="DIR", help=t("kit folder that {names} in the recipe refer to"))
    add("--budget", type=int, help=t("samples that training will see; {budget} in the recipe"))
    add("--var", action="append", default=[], metavar="NAME=VALUE", help=t("value of a {NAME} in the recipe"))
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=t("change a key, e.g. --set seed=7"))
    add("--np", type=int, metavar="N", help=t("processes (default: the recipe's np, else all cores)"))
    add("--plan", action="store_true", help=t("check the recipe and print its steps; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def read(args: argparse.Namespace) -> Any:
    """The recipe with variables and overrides applied."""
    from bettersynth.engine.plan import read_recipe
    from bettersynth.experiment.loop import recipe_overrides, strategy_path, variables
    from bettersynth.experiment.workspace import Workspace

    values: dict[str, Any] = {}
    overrides = list(args.set)
    path = strategy_path(args.recipe)
    if args.workspace is not None:
        workspace = Workspace(args.workspace)
        values = variables(workspace, args.budget)
        overrides += recipe_overrides(path, workspace)
    elif args.budget is not None:
        values["budget"] = args.budget
    for word in args.var:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(t("cannot read this variable"), where="--var", got=word, expected="NAME=VALUE")
        values[name] = value
    return read_recipe(path, overrides=overrides, variables=values)


def run(args: argparse.Namespace) -> int:
    """Plan or process, then print the accounting."""
    from dataclasses import asdict

    from bettersynth.engine.local import accounting_of, process
    from bettersynth.engine.plan import plan

    recipe = read(args)
    planned = plan(recipe)
    progress = Progress()
    for notice in planned.notices:
        progress.done(notice)
    if args.plan:
        steps = [asdict(step) for step in planned.describe()]
        if args.json:
            print_json({"digest": planned.digest, "steps": steps})
        else:
            print_rows(
                (t("stage"), t("operator"), t("parameters"), t("note")),
                [
                    (s["stage"], s["operator"], " ".join(f"{k}={v}" for k, v in s["params"].items()), s["note"])
                    for s in steps
                ],
            )
        return 0
    out = args.out or Path(recipe.keys.export_path).parent
    artifact = process(recipe, out=out, workers=args.np, progress=lambda state: progress(str(state)))
    counts = accounting_of(artifact)
    if args.json:
        print_json({"folder": str(out), "digest": artifact.digest, **artifact.facts, "run": artifact.run})
        return 0
    print_rows(
        (t("operator"), t("in"), t("out"), t("made"), t("changed"), t("quarantined"), t("dropped"), t("CPU s")),
        [
            (
                c.operator,
                c.rows_in,
                c.rows_out,
                c.rows_made,
                c.changed,
                c.quarantined,
                _reasons(c.dropped),
                f"{c.cpu_s:.2f}",
            )
            for c in counts
        ],
    )
    print(t("{rows} rows in {folder}", rows=artifact.facts["rows_out"], folder=out))
    return 0


def _reasons(dropped: Any) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "0"
