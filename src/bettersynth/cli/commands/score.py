"""Score kept answers again; needs no model, and refuses answers that do not say where they come from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import print_scores
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``score``."""
    parser.add_argument(
        "predictions", nargs="+", type=Path, metavar="DIR", help=t("eval_results/NAME/PROTOCOL folders")
    )
    parser.add_argument(
        "--data", type=Path, default=Path("toolkit/eval"), metavar="DIR", help=t("evaluation folder or question file")
    )
    parser.add_argument("--resamples", type=positive, default=2000, help=t("bootstrap resamples (default: 2000)"))
    parser.add_argument("--json", action="store_true", help=t("print JSON"))


def _check(folder: Path) -> None:
    """Refuse a folder without answers, naming those below it that have some.

    Raises:
        DataError: it has none.
    """
    if (folder / "predictions.jsonl").is_file() or (folder / "manifest.json").is_file():
        return
    below = sorted(path.parent for path in folder.glob("**/predictions.jsonl"))[:_SHOWN]
    raise DataError(
        t("no answers in this folder") if folder.is_dir() else t("no such folder"),
        where=str(folder),
        got=", ".join(str(path) for path in below) or None,
        expected="eval_results/NAME/PROTOCOL",
        hint="bettersynth score " + " ".join(str(path) for path in below)
        if below
        else t("make them with: bettersynth eval, or bettersynth run eval_only"),
    )


def run(args: argparse.Namespace) -> int:
    """Score each folder under every scoring protocol of its task."""
    from bettersynth.eval.score import load_results, score

    results: dict[str, list[Any]] = {}
    for folder in args.predictions:
        _check(folder)
    for folder in args.predictions:
        scores = score(folder, args.data, resamples=args.resamples)
        results.setdefault(folder.resolve().parent.name, []).extend(load_results(scores.folder))
    print_scores(results, as_json=args.json)
    return 0
