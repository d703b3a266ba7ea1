"""Make the report page of a finished experiment, data set or evaluation again.

FOLDER is an experiment's folder, a kit, a processed data set, or scores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kit import typed_command, write_page
from bettersynth.cli.render import print_facts, print_json
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t

EXAMPLES = ("bettersynth report my_kit", "bettersynth report output/processed_data --out page")
_PLACES = ("experiment.json", "output/experiments/*/experiment.json", "demo/experiment.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``report``."""
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help=t("what to report on (default: here)"))
    add("--out", type=Path, metavar="DIR", help=t("folder of the page (default: FOLDER/report)"))
    add("--title", help=t("heading of the page"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Find out what the folder is, and write its page."""
    if not args.folder.is_dir():
        raise DataError(
            t("no such folder"),
            where=str(args.folder),
            expected=t("an experiment, a kit with one, a processed data set, or scores"),
            hint=t("make one with: bettersynth run, or bettersynth compare"),
        )
    found = [path.parent for pattern in _PLACES for path in sorted(args.folder.glob(pattern))]
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise ConfigError(t("several experiments are here; name one"), where=str(args.folder), got=names)
    page = _experiment(args, found[0]) if found else _parts(args)
    print_json({"page": str(page)}) if args.json else print_facts({t("page"): page})
    return 0


def _experiment(args: argparse.Namespace, folder: Path) -> Path:
    from bettersynth.experiment.run import load_outcome

    outcome = load_outcome(folder)
    _check_scores(outcome)
    title = args.title or outcome.config.name
    return write_page(outcome, args.out or folder / "report", title=title, command=typed_command())


def _check_scores(outcome: Any) -> None:
    """Refuse an experiment whose answers or scores were changed since; what was cleared away is not asked for.

    Raises:
        ProvenanceError: with the folder.
    """
    from bettersynth.eval.score import load_results

    for condition in outcome.config.conditions:
        for seed in outcome.config.seeds:
            model = f"MGM-2B-Finetune-{condition.name}-{seed}"
            place = outcome.places.trial_folder(condition.name, seed) / "eval_results" / model
            for manifest in sorted(place.glob("*/scores/manifest.json")):
                load_results(manifest.parent)


def _parts(args: argparse.Namespace) -> Path:
    """A page about a data set or about scores alone."""
    from bettersynth.core.artifact import Artifact
    from bettersynth.core.record import ReportInput
    from bettersynth.experiment.summary import environment
    from bettersynth.media.thumbnail import thumbnail
    from bettersynth.report.build import PAGE, build_report

    folder: Path = args.folder
    content: dict[str, Any] = {}
    if Artifact.exists(folder) and Artifact.load(folder).kind == "dataset":
        from bettersynth.experiment.summary import dataset_summary

        content["datasets"] = (dataset_summary(folder, name=folder.resolve().name),)
    else:
        content["results"] = _results(folder)
    page = ReportInput(
        title=args.title or folder.resolve().name,
        command=typed_command(),
        is_demo=False,
        environment=environment(),
        **content,
    )
    out = args.out or folder / "report"
    build_report(page, out, root=folder, thumbnail=thumbnail)
    return out / PAGE


def _results(folder: Path) -> dict[str, Any]:
    """Model to scores: of one model's folder, or of every folder of models below."""
    from bettersynth.experiment.analysis import results, scores_folders

    try:
        places = scores_folders(folder)
    except DataError as error:
        raise DataError(
            t("nothing to report on here"),
            where=str(folder),
            expected=t("an experiment, a kit with one, a processed data set, or scores"),
            hint=t("make one with: bettersynth run, or bettersynth compare"),
        ) from error
    found: dict[str, list[Any]] = {}
    for place in places:  # …/NAME/PROTOCOL/scores
        found.setdefault(place.resolve().parent.parent.name, []).extend(results(place))
    return {name: tuple(scores) for name, scores in found.items()}
