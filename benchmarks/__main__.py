"""Run benchmarks: ``python -m benchmarks [NAME ...] [--data-juicer-python PATH] [--small]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.measure import machine
from benchmarks.sides import Sides

RESULTS = Path(__file__).parent / "results"


def main(words: Sequence[str] | None = None) -> int:
    """Run the named cases (by default all that are not heavy); 1 when one of our runs failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all but the heavy ones)")
    parser.add_argument("--data-juicer-python", type=Path, metavar="PATH", help="Python with py-data-juicer 1.6.1")
    parser.add_argument(
        "--small", action="store_true", help="a few hundred rows: checks that all works, says nothing about speed"
    )
    parser.add_argument("--size", type=int, metavar="N", help="rows, in place of the case's own number")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep data and outputs here (default: a temporary folder)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where JSON goes (default: benchmarks/results; nowhere with --small)",
    )
    args = parser.parse_args(words)
    unknown = [name for name in args.names if name not in CASES]
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(CASES)}")
    names = args.names or [name for name, case in CASES.items() if not case.heavy]
    results = args.results or (None if args.small else RESULTS)
    with tempfile.TemporaryDirectory(prefix="bench-") as temp:
        sides = Sides((args.work or Path(temp)).absolute(), _absolute(args.data_juicer_python))
        if sides.data_juicer is None:
            print("Data-Juicer is not compared: give its Python with --data-juicer-python PATH", file=sys.stderr)
        failed = False
        for name in names:
            case = CASES[name]
            size = args.size or (case.small if args.small else case.size)
            facts = {"benchmark": name, "about": case.about, "machine": machine(), **case.run(sides, size)}
            failed |= _exit_code(facts) != 0
            show(facts)
            if results is not None:
                results.mkdir(parents=True, exist_ok=True)
                text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
                (results / f"{name}.json").write_text(text, encoding="utf-8")
    return 1 if failed else 0


def _absolute(path: Path | None) -> Path | None:
    # Not resolved: a virtual environment's Python is a link, and following it would leave the environment.
    return None if path is None else path.absolute()


def _exit_code(facts: dict[str, Any]) -> int:
    return int(facts.get("ours", {}).get("exit_code", 0)) or max(
        (point["exit_code"] for point in facts.get("points", ())), default=0
    )


def _listed() -> str:
    lines = [
        f"  {name:<22}{case.about} ({case.size:,}{'; heavy' if case.heavy else ''})" for name, case in CASES.items()
    ]
    return "benchmarks:\n" + "\n".join(lines)


_SHOWN = frozenset(
    (
        *("benchmark", "about", "machine", "ours", "theirs", "ratio", "asked", "compared", "lost_to_rounding"),
        *("points", "runs", "ceiling_runs", "rows_in"),
    )
)


def show(facts: dict[str, Any]) -> None:
    """Print one benchmark's facts, one line each; both sides below each other."""
    where = facts["machine"]
    print(f"\n== {facts['benchmark']}: {facts['about']}")
    print(f"   {where['cores']} cores, {where['cpu']}, load {where['load']}")
    for side in ("ours", "theirs"):
        if side in facts:
            print(f"   {side:<7}{_line(facts[side])}{facts[side]['rows_out']:>9} rows out")
    for point in facts.get("points", ()):
        print(f"   {point['rows']:>9,} rows{_line(point)}")
    if "ratio" in facts:
        print(f"   ratio {facts['ratio']} in CPU seconds (asked: {facts['asked']})")
    for found in facts.get("compared", ()):
        names = ("only_ours", "only_theirs", "other_text", "other_images")
        differ = ", ".join(f"{name.replace('_', ' ')} {found[name]}" for name in names)
        same = "equal, in order" if found["is_equal"] else f"{differ}, same order {found['same_order']}"
        print(f"   rows against the {found['against']}: {same}")
    if facts.get("lost_to_rounding", {}).get("rows"):
        lost = facts["lost_to_rounding"]
        print(f"   its default executor loses {lost['rows']} rows to rounded stats: {', '.join(lost['ids'])}")
    for name, value in facts.items():
        if name not in _SHOWN:
            print(f"   {name.replace('_', ' ')}: {value}")


def _line(row: dict[str, Any]) -> str:
    rate = row["rows_per_cpu_s"] or 0
    return (
        f"{row['cpu_s']:>9.2f} CPU s {row['wall_s']:>9.2f} s wall {rate:>11,.0f} rows/CPU s {row['peak_pss_mb']:>6} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
