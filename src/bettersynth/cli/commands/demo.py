"""Run the whole loop on a small procedural world: no GPU, no download, a few minutes.

Draws noisy image-text pairs, processes them, trains a tiny MGM on the raw and on the processed pairs under one budget,
evaluates both, writes a report page and packs a demo submission. Running it again continues where it stopped.

`demo bagel` continues a shipped tiny BAGEL on the world's records, draws prompts of combinations it never saw, scores
them exactly, describes unseen pictures, holds a dialogue and writes a page.

`demo bagel --compare` trains it on the noisy captions of the world's seed set, on what the balanced strategy makes of
them and on the true ones, under one budget, and compares what it then draws.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import Progress, print_json, print_rows, share_text
from bettersynth.core.lang import t


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``demo``."""
    add = parser.add_argument
    add("which", nargs="?", choices=("mgm", "bagel"), default="mgm", help=t("mgm: the whole loop (default); bagel"))
    add("--quick", action="store_true", help=t("under a minute: shows that everything works; scores stay at chance"))
    add("-o", "--out", type=Path, metavar="DIR", help=t("workspace (default: demo_out, for bagel demo_bagel_out)"))
    add(
        "--compare", action="store_true", help=t("bagel: train on noisy, processed and true captions, compare drawings")
    )
    add("--seed", type=int, default=0, help=t("seed of the world (default: 0)"))
    add("--workers", type=positive, metavar="N", help=t("processes (default: all cores; bagel: one)"))
    add("--plan", action="store_true", help=t("say what would be done; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def _plan(args: argparse.Namespace) -> int:
    if args.compare:
        from bettersynth.demo.bagel.data_comparison import plan_comparison as plan
    elif args.which == "bagel":
        from bettersynth.demo.bagel.tour import plan_bagel_demo as plan
    else:
        from bettersynth.demo.tour import plan_demo as plan

    rows = plan(args.out, is_quick=args.quick, seed=args.seed)
    if args.json:
        print_json([dict(zip(("part", "state", "detail"), row, strict=True)) for row in rows])
    else:
        print_rows((t("part"), t("state"), t("detail")), rows)
    return 0


def run(args: argparse.Namespace) -> int:
    """Run the demo and print the table and where page and zip lie."""
    from bettersynth.core.errors import ConfigError, MissingExtraError
    from bettersynth.demo.place import check_place, claim

    is_bagel = args.which == "bagel"
    command = "bettersynth demo" + (" bagel" if is_bagel else "") + (" --quick" if args.quick else "")
    command += (" --compare" if args.compare else "") + (f" --seed {args.seed}" if args.seed else "")
    if args.compare and not is_bagel:
        raise ConfigError(
            t("only the bagel demo has this flag"), where="--compare", hint="bettersynth demo bagel --compare"
        )
    usual = "demo_bagel_compare_out" if args.compare else "demo_bagel_out" if is_bagel else "demo_out"
    args.out = args.out or Path(usual)
    check_place(args.out, command)
    if args.plan:
        return _plan(args)
    try:
        import torch

        torch.set_num_threads(1)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("the demo"), "train", missing=error.name) from error
    if args.compare:
        return _compare(args)
    if is_bagel:
        return _bagel(args, command)
    from bettersynth.demo.tour import run_demo
    from bettersynth.report.terminal import render_terminal

    progress = Progress()
    started = time.perf_counter()
    claim(args.out)
    result = run_demo(
        args.out, is_quick=args.quick, seed=args.seed, workers=args.workers, say=progress.done, command=command
    )
    shown = {"report": result.page, "submission": result.submission}
    if args.json:
        print_json(
            {"results": result.report.results, "comparisons": result.report.comparisons, "costs": result.costs} | shown
        )
        return 0
    print(render_terminal(result.report))
    print_rows(
        (t("stage"), t("wall s"), t("CPU s")), [(c.stage, f"{c.wall_s:.1f}", f"{c.cpu_s:.1f}") for c in result.costs]
    )
    print()
    print(t("report      {path}", path=result.page))
    print(t("submission  {path}", path=result.submission))
    print(t("done in {n} s", n=round(time.perf_counter() - started)))
    return 0


def _bagel(args: argparse.Namespace, command: str) -> int:
    """The demo of joint training: a table of exact scores and the page's path."""
    from bettersynth.core.errors import ConfigError
    from bettersynth.demo.bagel.scores import answer_table, caption_table
    from bettersynth.demo.bagel.tour import run_bagel_demo
    from bettersynth.demo.place import claim
    from bettersynth.demo.world.composition import summary

    if args.workers not in (None, 1):
        raise ConfigError(t("demo bagel runs in one process"), where="--workers", got=args.workers, expected="1")
    progress = Progress()
    started = time.perf_counter()
    claim(args.out)
    result = run_bagel_demo(args.out, is_quick=args.quick, seed=args.seed, say=progress.done, command=command)
    pictures, captions, answers = summary(result.verdicts), caption_table(result.captions), answer_table(result.answers)
    if args.json:
        tables = {"pictures": pictures, "captions": captions, "answers": answers}
        print_json({**tables, "costs": result.costs, "report": result.page})
        return 0
    parts = list(next(iter(pictures.values())))
    shown = [(t(name), *(share_text(row[part]) for part in parts)) for name, row in pictures.items()]
    print_rows((t("category"), *map(t, parts)), shown, "<" + ">" * len(parts))
    print()
    for title, table in ((t("captions"), captions), (t("answers"), answers)):
        named = [name for name, share in table.items() if share.of]
        print_rows(
            (title, *map(t, named)), [("", *(share_text(table[name]) for name in named))], "<" + ">" * len(named)
        )
        print()
    print_rows(
        (t("stage"), t("wall s"), t("CPU s")), [(c.stage, f"{c.wall_s:.1f}", f"{c.cpu_s:.1f}") for c in result.costs]
    )
    print()
    print(t("report      {path}", path=result.page))
    print(t("done in {n} s", n=round(time.perf_counter() - started)))
    return 0


def _compare(args: argparse.Namespace) -> int:
    """Which captions teach to draw: a table against the noisy ones, and the verdicts against the start."""
    from dataclasses import asdict

    from bettersynth.cli.render import print_comparison, print_facts
    from bettersynth.demo.bagel.data_comparison import compare_data
    from bettersynth.demo.place import claim

    progress = Progress()
    claim(args.out)
    found = compare_data(
        args.out.absolute(), is_quick=args.quick, seed=args.seed, workers=args.workers or 1, say=progress.done
    )
    if args.json:
        print_json({"raw": asdict(found.table), "none": asdict(found.against_start), "folder": found.folder})
        return 0
    print_comparison(found.table)
    print()
    categories = list(next(iter(found.table.results.values()))[0].by_category)
    rows = [
        (name, *(f"{results[0].by_category[category][0]:.1f}" for category in categories))
        for name, results in found.table.results.items()
    ]
    print_rows((t("right, %"), *map(t, categories)), rows, "<" + ">" * len(categories))
    print()
    for one in found.against_start.comparisons:
        low, high = one.difference.low, one.difference.high
        shown = f"{one.difference.value:+.1f} [{low:+.1f}, {high:+.1f}] {t(one.verdict)}"
        print(t("{protocol}: {name} against the start {shown}", protocol=one.protocol, name=one.b, shown=shown))
    print()
    print_facts({t("results"): found.folder / "comparison"})
    return 0
