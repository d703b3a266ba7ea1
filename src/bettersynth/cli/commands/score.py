"""Score kept answers again; needs no model, and refuses answers that do not say where they come from."""

from __future__ import annotations

import argparse
from pathlib import Path

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import print_scores
from bettersynth.core.lang import t


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


def run(args: argparse.Namespace) -> int:
    """Score each folder under every scoring protocol of its task."""
    from bettersynth.eval.score import load_results, score

    results = {}
    for folder in args.predictions:
        scores = score(folder, args.data, resamples=args.resamples)
        results.setdefault(folder.resolve().parent.name, []).extend(load_results(scores.folder))
    print_scores(results, as_json=args.json)
    return 0
