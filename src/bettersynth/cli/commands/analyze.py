"""See where scores come from, or what changed between two models: by category, question type, answer length and error.

A and B are folders in output/eval_results, one of their parts, or just their names; or a condition of an experiment
(raw, EXPERIMENT/raw), which stands for all its seeds. Differences are paired and come with intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import unsigned
from bettersynth.cli.render import print_facts, print_json, print_rows
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth analyze MGM-2B-Finetune-mine-1",
    "bettersynth analyze output/eval_results/A output/eval_results/B --page compared",
    "bettersynth analyze raw quality_focused --workspace my_kit --protocol textvqa-noocr",
)
_DATA = Path("toolkit/eval")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``analyze``."""
    add = parser.add_argument
    add("a", nargs="?", metavar="A", help=t("scores of one model or condition (default: the only one of the kit)"))
    add("b", nargs="?", metavar="B", help=t("scores of another on the same questions"))
    add("--workspace", type=Path, default=Path(), metavar="DIR", help=t("kit folder (default: this one)"))
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help=t("questions and pictures (default: toolkit/eval of the workspace, if it is there)"),
    )
    add("--protocol", metavar="NAME", help=t("only this scoring protocol, e.g. mmbench-circular"))
    add("--page", type=Path, metavar="DIR", help=t("write a page with galleries of what changed, and every figure"))
    add("--show", type=unsigned, default=5, metavar="N", help=t("changed questions to list per direction (default: 5)"))
    add("--resamples", type=int, default=2000, metavar="N", help=t("bootstrap resamples (default: 2000)"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Compute everything once; print it, and write the page when asked."""
    import tempfile

    from bettersynth.cli.kit import typed_command
    from bettersynth.experiment.analysis import analyse
    from bettersynth.experiment.answers import find_side

    if args.resamples < 100:
        raise ConfigError(t("too few resamples"), where="--resamples", got=args.resamples, expected=t("100 or more"))
    a = find_side(args.a, args.workspace)
    b = find_side(args.b, args.workspace) if args.b else None
    data = args.data or (args.workspace / _DATA if (args.workspace / _DATA).is_dir() else None)
    with tempfile.TemporaryDirectory() as folder:
        found = analyse(a, b, data=data, protocol=args.protocol, pictures=Path(folder), resamples=args.resamples)
        page = _page(args.page, found, typed_command()) if args.page else None
    if args.json:
        print_json({"page": str(page), "analysis": found} if page else found)
        return 0
    for number, protocol in enumerate(found.protocols):
        _print(found, number, protocol, args.show)
    if found.name_b and max(found.num_seeds) == 1:
        print(t("One checkpoint each: this speaks of these two models, not of what they were trained on."))
    if page:
        print_facts({t("page"): page})
    return 0


def _page(out: Path, found: Any, command: str) -> Path:
    from dataclasses import replace

    from bettersynth.media.thumbnail import thumbnail
    from bettersynth.report.analysis_page import PAGE, build_analysis

    build_analysis(replace(found, command=command), out, thumbnail=thumbnail)
    return out / PAGE


def _print(analysis: Any, number: int, found: Any, show: int) -> None:
    from bettersynth.report.analysis_page import GROUP_TITLES, sentences

    print(sentences(analysis)[number].text())
    for kind, title in GROUP_TITLES.items():
        _print_groups(t(title), [group for group in found.groups if group.kind == kind])
    _print_groups(t("What is wrong with wrong answers"), found.errors)
    if found.agreement is not None:
        _print_agreement(analysis, found.agreement)
    changed = [(t("worse"), c) for c in found.broken[:show]] + [(t("better"), c) for c in found.fixed[:show]]
    if changed:
        print()
        rows = [
            (word, c.question_id, _cut(c.question), _cut(c.before), _cut(c.after), _cut(c.expected))
            for word, c in changed
        ]
        header = (t("change"), "id", t("question"), t("answer of A"), t("answer of B"), t("expected"))
        print_rows(header, rows)
    print()


def _print_groups(title: str, groups: Any) -> None:
    if not groups:
        return
    from bettersynth.report.text import interval, p_value, points, signed

    print()
    names = [group.name if group.kind == "category" else t(group.name) for group in groups]
    if groups[0].b is None:
        header: tuple[str, ...] = (title, t("questions"), "%", t("interval"))
        rows: list[tuple[object, ...]] = [
            (name, g.num_questions, points(g.a.value), interval(g.a)) for name, g in zip(names, groups, strict=True)
        ]
        print_rows(header, rows, "<>>>")
        return
    header = (title, t("questions"), "A %", "B %", t("difference"), t("interval"), t("p (Holm)"))
    rows = [
        (
            name,
            g.num_questions,
            points(g.a.value),
            points(g.b.value),
            signed(g.difference.value),
            interval(g.difference),
            p_value(g.p_value_holm),
        )
        for name, g in zip(names, groups, strict=True)
    ]
    print_rows(header, rows, "<>>>>>>")


def _print_agreement(analysis: Any, found: Any) -> None:
    from bettersynth.report.text import interval, points

    rows = [
        (t("both right"), found.both_right),
        (t("only {name} right", name=analysis.name_a), found.only_a),
        (t("only {name} right", name=analysis.name_b), found.only_b),
        (t("both wrong"), found.both_wrong),
        (t("same answer"), found.same_answer),
        (t("same wrong answer, where both are wrong"), found.same_wrong),
    ]
    print()
    cells = [(name, points(value.value), interval(value)) for name, value in rows if value is not None]
    if found.kappa is not None:
        kappa = found.kappa
        cells.append((t("Cohen's kappa of being right"), f"{kappa.value:.2f}", f"[{kappa.low:.2f}, {kappa.high:.2f}]"))
    for name, share in ((analysis.name_a, found.within_a), (analysis.name_b, found.within_b)):
        if share is not None:
            cells.append((t("same answer between two seeds of {name}", name=name), points(share), ""))
    print_rows((t("Agreement"), "%", t("interval")), cells, "<>>")


def _cut(text: str, length: int = 40) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
