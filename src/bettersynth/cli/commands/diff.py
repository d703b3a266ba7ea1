"""Compare two data sets sample by sample: which were dropped, added, rewritten or repeated, and why.

Reasons come from the traces of processed folders; plain data files are compared as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bettersynth.cli.render import print_facts, print_json, print_rows
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

EXAMPLES = ("bettersynth diff output/first output/second", "bettersynth diff input/rows.jsonl output/second --show 10")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``diff``."""
    add = parser.add_argument
    add("a", type=Path, metavar="A", help=t("processed folder or data file"))
    add("b", type=Path, metavar="B", help=t("the one to compare it with"))
    add("--text-key", default="text", metavar="KEY", help=t("text column (default: text)"))
    add("--image-key", default="images", metavar="KEY", help=t("picture column (default: images)"))
    add("--show", type=int, default=3, metavar="N", help=t("ids shown per reason (default: 3)"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from dataclasses import asdict

    from bettersynth.engine.diff import diff

    if args.show < 0:
        raise ConfigError(t("not a number of ids"), where="--show", got=args.show, expected=t("0 or more"))
    found = diff(args.a, args.b, text_key=args.text_key, image_key=args.image_key, examples=args.show)
    if args.json:
        print_json(asdict(found))
        return 0
    print_facts({t("rows in A"): found.rows_a, t("rows in B"): found.rows_b, t("samples equal"): found.same})
    if found.groups:
        print()
        rows = [(t(group.kind), group.samples, group.reason, ", ".join(group.examples)) for group in found.groups]
        print_rows((t("difference"), t("samples"), t("reason"), t("examples")), rows, "<>")
    return 0
