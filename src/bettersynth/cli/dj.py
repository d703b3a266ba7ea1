"""Data-Juicer's two commands, served by this engine: ``--config RECIPE [--key value ...]``.

``bettersynth-dj-process`` and ``bettersynth-dj-analyze`` take what ``dj-process`` and ``dj-analyze`` take. They carry
names of their own, so that both packages can be installed together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import set_language, t

_EXPORT = "./outputs/hello_world/hello_world.jsonl"
_OWN = ("--config", "--set", "--help", "--plan", "--json")


def _arguments(name: str, words: Sequence[str]) -> argparse.Namespace:
    from bettersynth.cli.main import Help, Parser
    from bettersynth.cli.overrides import as_sets

    parser = Parser(prog=name, description=t("Run a Data-Juicer recipe"), formatter_class=Help, allow_abbrev=False)
    add = parser.add_argument
    add("--config", type=Path, metavar="RECIPE", help=t("recipe file"))
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=t("change a key; --KEY VALUE does the same"))
    add("--plan", action="store_true", help=t("check the recipe and print its steps; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))
    return parser.parse_args(as_sets(words, own=_OWN, every=True))


def _recipe(args: argparse.Namespace) -> Any:
    from bettersynth.config.load import load_yaml, parse_yaml
    from bettersynth.config.recipe import build_recipe
    from bettersynth.engine.plan import check_steps
    from bettersynth.engine.preflight import preflight

    if args.config is None and not args.set:
        raise ConfigError(t("needed: {names}", names="--config"), hint=t("see: {command} --help", command=sys.argv[0]))
    document = load_yaml(args.config) if args.config is not None else parse_yaml("{}", name="--set")
    if not document.data.get("export_path") and not any(word.startswith("export_path=") for word in args.set):
        args.set.insert(0, f"export_path={_EXPORT}")
    # Data-Juicer looks paths up from the working directory; the recipe's folder comes second.
    base = args.config.parent if args.config is not None else Path()
    return build_recipe(document, base=base, overrides=args.set, check_steps=check_steps, check_recipe=preflight)


def _main(name: str, work: Callable[[argparse.Namespace], int], words: Sequence[str] | None) -> int:
    set_language(None)
    try:
        return work(_arguments(name, sys.argv[1:] if words is None else words))
    except BetterSynthError as error:
        sys.stdout.flush()
        print(error.render(), file=sys.stderr)
        return error.exit_code


def process_main(words: Sequence[str] | None = None) -> int:
    """``bettersynth-dj-process``; returns the exit code."""
    from bettersynth.cli.commands.process import run_recipe

    def work(args: argparse.Namespace) -> int:
        # The recipe's np says how many processes, as in Data-Juicer.
        args.out = args.np = None
        return run_recipe(args, _recipe(args))

    return _main("bettersynth-dj-process", work, words)


def analyze_main(words: Sequence[str] | None = None) -> int:
    """``bettersynth-dj-analyze``; returns the exit code."""
    from bettersynth.cli.render import Progress, print_json, print_rows, show_data_progress
    from bettersynth.engine.stats import analyze_stats, overall

    def work(args: argparse.Namespace) -> int:
        recipe = _recipe(args)
        progress = Progress()
        out = Path(str(recipe.keys.export_path)).expanduser().parent
        folder = analyze_stats(recipe, out=out, progress=show_data_progress(progress))
        table = overall(folder)
        if args.json:
            print_json({"folder": str(folder), "overall": table})
            return 0
        names = list(table)
        rows = [(row, *(f"{table[name][row]:g}" for name in names)) for row in (table[names[0]] if names else ())]
        print_rows(("", *names), rows, "<" + ">" * len(names))
        progress.done(t("tables: {path}", path=folder))
        return 0

    return _main("bettersynth-dj-analyze", work, words)


if __name__ == "__main__":
    which = analyze_main if sys.argv[1:2] == ["analyze"] else process_main
    sys.exit(which(sys.argv[2:]))
