"""Make a challenge kit folder of thin scripts, or take over an existing one.

Nothing that is there is overwritten; running it again writes only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bettersynth.cli.render import print_json, print_rows
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

EXAMPLES = ("bettersynth init my_kit --track 10k", "bettersynth init --adopt existing_kit")
_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``init``."""
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="FOLDER", help=t("the kit's folder; made when it is not there"))
    add("--track", metavar="NAME", help=t("online, final, 10k, demo, open or unified (default: online)"))
    add("--adopt", type=Path, metavar="DIR", help=t("take over this kit folder: its files, checkpoints and logs stay"))
    add("--plan", action="store_true", help=t("list the files that would be written; change nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Make, adopt, or list."""
    from bettersynth.kit.build import adopt, init, kit_files

    if (args.folder is None) == (args.adopt is None):
        raise ConfigError(
            t("give either a folder or --adopt DIR"), hint=t("see: {command} --help", command="bettersynth init")
        )
    folder = args.folder or args.adopt
    if args.track == "unified":
        return _unified(args, folder)
    if args.plan:
        names = sorted(kit_files(args.track or "online"))
        state = {name: t("there") if (folder / name).exists() else t("to do") for name in names}
        print_json(state) if args.json else print_rows((t("file"), t("state")), list(state.items()))
        return 0
    report = adopt(folder, args.track) if args.adopt else init(folder, args.track or "online")
    if args.json:
        print_json(report)
        return 0
    print(t("kit for track {track} in {folder}", track=report.track, folder=report.folder))
    print(t("{n} files written, {kept} were there and stay", n=len(report.written), kept=len(report.kept)))
    for what, names in report.found.items():
        if names:
            more = f", … (+{len(names) - _SHOWN})" if len(names) > _SHOWN else ""
            print(t("found {what}: {names}", what=t(what), names=", ".join(names[:_SHOWN]) + more))
    for name in report.missing:
        print(t("still missing: {name}", name=name))
    steps = ["bash download.sh"] if report.missing else []
    steps += ["bettersynth explore --workspace .", "bettersynth run"]
    print(t("next, in {folder}: {steps}", folder=report.folder, steps="; ".join(steps)))
    return 0


def _unified(args: argparse.Namespace, folder: Path) -> int:
    """The folder of the unified generation guide: no challenge, one script."""
    from bettersynth.kit.unified import init_unified, unified_files

    if args.plan:
        state = {name: t("there") if (folder / name).exists() else t("to do") for name in sorted(unified_files())}
        print_json(state) if args.json else print_rows((t("file"), t("state")), list(state.items()))
        return 0
    report = init_unified(folder)
    if args.json:
        print_json(report)
        return 0
    print(t("{n} files written, {kept} were there and stay", n=len(report.written), kept=len(report.kept)))
    step = "python train_unified_generation.py --help"
    print(t("next, in {folder}: {steps}", folder=report.folder, steps=step))
    return 0
