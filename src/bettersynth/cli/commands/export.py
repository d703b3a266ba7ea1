"""Write a recipe in a form that another engine runs: for plain Data-Juicer, with our operators as files beside it.

The result needs neither this program nor its engine: dj-process loads the operators through custom_operator_paths.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bettersynth.cli.render import print_json, print_rows
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth export --data-juicer quality_focused --workspace my_kit --out for_data_juicer",
    "bettersynth export --data-juicer recipe.yaml --out for_data_juicer --set seed=7",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help=t("recipe file, or a strategy's name (bettersynth explain strategies)"))
    add("--data-juicer", action="store_true", help=t("for Data-Juicer 1.6.1, whose dj-process runs it"))
    add("-o", "--out", type=Path, required=True, metavar="DIR", help=t("folder to write"))
    add("--workspace", type=Path, metavar="DIR", help=t("kit folder whose seed set, pictures and models are used"))
    add("--budget", type=int, metavar="N", help=t("samples that training will see; {budget} in the recipe"))
    add("--var", action="append", default=[], metavar="NAME=VALUE", help=t("value of a {NAME} in the recipe"))
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=t("change a key, e.g. --set seed=7"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Check the recipe, then write it and the operators."""
    from bettersynth.cli.commands import process
    from bettersynth.engine.export_data_juicer import RECIPE_FILE, export_data_juicer
    from bettersynth.engine.plan import plan

    if not args.data_juicer:
        raise ConfigError(t("export to what?"), expected="--data-juicer")
    # The recipe is read as "process" reads it, with that command's defaults for what this one does not ask.
    parser = argparse.ArgumentParser(add_help=False)
    process.add_arguments(parser)
    recipe = process.read(parser.parse_args([args.recipe], argparse.Namespace(**vars(args))))
    exported = export_data_juicer(plan(recipe), args.out)
    if args.json:
        print_json({"folder": str(args.out), "steps": [list(step) for step in exported.steps]})
        return 0
    print_rows((t("operator"), t("there")), list(exported.steps))
    print()
    print(
        t(
            "{n} of {all} steps are ours; run it with: cd {folder} && dj-process --config {file}",
            n=exported.num_ours,
            all=len(exported.steps),
            folder=args.out,
            file=RECIPE_FILE,
        )
    )
    return 0
