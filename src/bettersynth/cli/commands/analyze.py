"""See where scores come from: by category, or what changed between two models.

A and B are folders in output/eval_results, one of their parts, or just their names.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.render import print_json, print_rows
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth analyze MGM-2B-Finetune-mine-1",
    "bettersynth analyze output/eval_results/A output/eval_results/B",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``analyze``."""
    add = parser.add_argument
    add("a", nargs="?", metavar="A", help=t("scores of one model (default: the only one of the kit)"))
    add("b", nargs="?", metavar="B", help=t("scores of another model on the same questions"))
    add("--workspace", type=Path, default=Path(), metavar="DIR", help=t("kit folder (default: this one)"))
    add("--protocol", metavar="NAME", help=t("only this scoring protocol, e.g. mmbench-circular"))
    add("--show", type=int, default=5, metavar="N", help=t("changed questions to list per direction (default: 5)"))
    add("--resamples", type=int, default=2000, metavar="N", help=t("bootstrap resamples (default: 2000)"))
    add("--json", action="store_true", help=t("print JSON"))


def find(name: str | None, workspace: Path) -> Path:
    """The folder a user means.

    Raises:
        DataError, ConfigError: nothing of that name, or several to choose from.
    """
    base = workspace / "output" / "eval_results"
    if name is not None:
        return Path(name) if Path(name).is_dir() or not (base / name).is_dir() else base / name
    found = sorted(path for path in base.glob("*") if path.is_dir())
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            t("no scores here"), where=str(base), hint=t("make them with: bettersynth eval, or bettersynth score")
        )
    raise ConfigError(t("several models were evaluated; name one or two"), got=", ".join(path.name for path in found))


def run(args: argparse.Namespace) -> int:
    """One model by category, or two side by side."""
    first = find(args.a, args.workspace)
    if args.resamples < 100:
        raise ConfigError(t("too few resamples"), where="--resamples", got=args.resamples, expected=t("100 or more"))
    return _two(args, first, find(args.b, args.workspace)) if args.b else _one(args, first)


def _chosen(items: list[Any], protocol: str | None) -> list[Any]:
    names = [item.protocol for item in items]
    if protocol is not None and protocol not in names:
        raise ConfigError(t("unknown protocol '{name}'", name=protocol), expected=", ".join(names))
    return [item for item in items if protocol in (None, item.protocol)]


def _one(args: argparse.Namespace, folder: Path) -> int:
    from bettersynth.experiment.analysis import results

    found = _chosen(results(folder), args.protocol)
    if args.json:
        print_json(found)
        return 0
    for result in found:
        mark = f": {t('at chance')}" if result.at_chance else ""
        score = result.score
        print(
            t(
                "{protocol}: {score} % [{low}, {high}] over {n} questions; guessing gives {chance} %",
                protocol=result.protocol,
                score=f"{score.value:.1f}",
                low=f"{score.low:.1f}",
                high=f"{score.high:.1f}",
                n=result.num_questions,
                chance=f"{result.chance:.1f}",
            )
            + mark
        )
        rows = [(name, f"{mean:.1f}", count) for name, (mean, count) in result.by_category.items()]
        if rows:
            print_rows((t("category"), "%", t("questions")), rows, "<>>")
        print()
    return 0


def _two(args: argparse.Namespace, a: Path, b: Path) -> int:
    from bettersynth.experiment.analysis import changes, results

    for folder in (a, b):
        results(folder)  # refuses scores without provenance
    found = _chosen(changes(a, b, resamples=args.resamples), args.protocol)
    if args.json:
        print_json(found)
        return 0
    for change in found:
        low, high = change.difference.low, change.difference.high
        word = t("tie") if change.is_tie else t("better") if change.difference.value > 0 else t("worse")
        print(
            t(
                "{protocol}: {difference} points [{low}, {high}], p = {p}: {verdict}; {fixed} questions better, "
                "{broken} worse, of {n}",
                protocol=change.protocol,
                difference=f"{change.difference.value:+.1f}",
                low=f"{low:+.1f}",
                high=f"{high:+.1f}",
                p=f"{change.p_value:.3f}",
                verdict=word,
                fixed=len(change.fixed),
                broken=len(change.broken),
                n=change.num_questions,
            )
        )
        rows = [
            (name, f"{x:.1f}", f"{y:.1f}", f"{y - x:+.1f}", count) for name, (x, y, count) in change.by_category.items()
        ]
        if rows:
            print_rows((t("category"), "A %", "B %", t("difference"), t("questions")), rows, "<>>>>")
        moved = [(t("worse"), c) for c in change.broken[: args.show]] + [
            (t("better"), c) for c in change.fixed[: args.show]
        ]
        if moved:
            print()
            lines = [(word, c.question_id, _cut(c.before), _cut(c.after), _cut(c.answers)) for word, c in moved]
            print_rows((t("change"), t("question"), t("answer of A"), t("answer of B"), t("expected")), lines)
        print()
    print(t("One checkpoint each: this speaks of these two models, not of what they were trained on."))
    return 0


def _cut(text: str, length: int = 40) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
