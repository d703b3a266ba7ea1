"""Pack a submission and check it against its track's rules; what the rules refuse is not packed.

All reasons for a refusal are listed at once. The same folder always gives the same zip.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bettersynth.cli.kit import track_of
from bettersynth.cli.render import print_facts, print_json
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

EXAMPLES = ("bettersynth submit --track 10k", "bettersynth submit --check submit/submit.zip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``submit``."""
    add = parser.add_argument
    add("workspace", nargs="?", type=Path, metavar="WORKSPACE", help=t("kit folder (default: this one)"))
    add("--track", metavar="NAME", help=t("online, final, 10k or demo (default: the kit's)"))
    add("--out", type=Path, metavar="DIR", help=t("folder of submit.zip (default: WORKSPACE/submit)"))
    add("--exclude", action="append", default=[], metavar="PATTERN", help=t("files of solution/ that stay out"))
    add("--config", type=Path, metavar="YAML", help=t("take track, workspace, out and exclude from a file"))
    add("--check", type=Path, metavar="ZIP", help=t("only check this zip; nothing is unpacked"))
    add("--plan", action="store_true", help=t("check everything, write nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Check a zip, or check and pack a kit."""
    if args.check is not None:
        return _check(args)
    from bettersynth.submission.pack import ZIP, submit

    workspace, track, out, exclude = _request(args)
    if args.plan:
        with tempfile.TemporaryDirectory() as folder:
            artifact = submit(workspace, track, Path(folder), exclude=exclude)
        place = None
    else:
        artifact = submit(workspace, track, out, exclude=exclude)
        place = out / ZIP
    if args.json:
        print_json({"zip": None if place is None else str(place), "digest": artifact.digest, **artifact.facts})
        return 0
    for notice in artifact.facts["notices"]:
        print(t("notice: {text}", text=notice))
    print_facts(
        {
            t("track"): artifact.facts["track"],
            t("experiment"): artifact.facts["name"],
            t("files"): artifact.facts["num_files"],
            t("zip"): t("not written: only planned") if place is None else place,
        }
    )
    if not artifact.facts["is_challenge_entry"]:
        print(t("This track is no challenge track: the zip shows the form of an entry and says so inside."))
    return 0


def _request(args: argparse.Namespace) -> tuple[Path, str, Path, tuple[str, ...]]:
    """Workspace, track, out and exclude from flags, then from the file, then from the kit."""
    config: Any = None
    if args.config is not None:
        from bettersynth.config.submission import load_submission

        config = load_submission(args.config)
    workspace = args.workspace or (config.workspace if config else Path())
    if not workspace.is_dir():
        hint = t("make a kit with: bettersynth init {folder}", folder=workspace)
        raise ConfigError(t("no such folder"), where="WORKSPACE", got=workspace, hint=hint)
    track = args.track or (config.track if config else track_of(workspace))
    if track is None:
        raise ConfigError(t("this folder does not say its track"), where=str(workspace), hint=t("give it with --track"))
    out = args.out or workspace / (config.out if config else "submit")
    return workspace, track, out, tuple(args.exclude) or (config.exclude if config else ())


def _check(args: argparse.Namespace) -> int:
    from bettersynth.submission.check import check

    report = check(args.check, track=args.track)
    if args.json:
        print_json(report)
        return 0
    for notice in report.notices:
        print(t("notice: {text}", text=notice))
    print(
        t(
            "{path}: the rules of track '{track}' allow it; experiment {name}, {n} files",
            path=args.check,
            track=report.track,
            name=report.name,
            n=report.num_files,
        )
    )
    return 0
