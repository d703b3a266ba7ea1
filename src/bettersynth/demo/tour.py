"""The demo: draw the world, run the whole loop on the raw and on the processed pairs, compare, report, pack.

Every part is finished by a manifest, so a killed demo continues when it is run again, with the same bytes at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path

from bettersynth.config.experiment import Condition, ExperimentConfig
from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.core.record import ReportInput, StageCost
from bettersynth.demo.quality import filter_quality
from bettersynth.demo.world.build import DEMO, QUICK, WorldSizes, build
from bettersynth.experiment.run import Outcome, Places, report_input, run_experiment
from bettersynth.experiment.state import part_rows
from bettersynth.experiment.summary import dataset_summary
from bettersynth.experiment.workspace import Workspace
from bettersynth.kit.build import init
from bettersynth.media.thumbnail import thumbnail
from bettersynth.report.build import PAGE, build_report
from bettersynth.submission.locked_files import record_data
from bettersynth.submission.pack import ZIP, submit
from bettersynth.submission.train_script import save_script

Say = Callable[[str], None]

STRATEGY = "advanced_data_processing"
SEED = 1
_ZOO = "toolkit/training/model_zoo"
_BASE_PLACES = {
    "gemma-tiny-it": "LLM/gemma/gemma-tiny-it",
    "clip-vit-tiny": "OpenAI/clip-vit-tiny",
    "openclip-convnext-large-d-320-tiny": "OpenAI/openclip-convnext-large-d-320-tiny",
    "clip-scorer-tiny": "scorer/clip-scorer-tiny",
    "blip-captioner-tiny": "captioner/blip-captioner-tiny",
}


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    workspace: Path
    report: ReportInput
    page: Path
    submission: Path
    costs: tuple[StageCost, ...]


def weights_folder() -> Path:
    """The shipped tiny base models."""
    return Path(str(resources.files("bettersynth").joinpath("demo", "weights")))


def is_world(root: Path, sizes: WorldSizes, seed: int) -> bool:
    """Whether the folder holds this very world."""
    marker = root / "hidden"
    if not Artifact.exists(marker):
        return False
    facts = Artifact.load(marker, kind="world").facts
    return bool(facts["sizes"] == asdict(sizes) and facts["seed"] == seed)


def prepare_workspace(root: Path, *, sizes: WorldSizes, seed: int) -> StageCost:
    """Draw the world and lay out base models as a kit has them; finished once, it is left alone.

    Returns:
        What drawing cost, when it was done.
    """
    marker = root / "hidden"
    cost_file = marker / "cost.json"
    if is_world(root, sizes, seed):
        return StageCost(**json.loads(cost_file.read_text(encoding="utf-8")))
    if Artifact.exists(marker):
        (marker / "manifest.json").unlink()
    with Meter("world") as meter:
        facts = build(root, sizes=sizes, seed=seed)
        for name, place in _BASE_PLACES.items():
            shutil.copytree(weights_folder() / name, root / _ZOO / place, dirs_exist_ok=True)
        init(root, "demo")
        record_data(root)
    write_atomic(cost_file, json.dumps(asdict(meter.cost)).encode())
    files = [str(path.relative_to(marker)) for path in sorted(marker.rglob("*.json*")) if path.name != "cost.json"]
    write_manifest(marker, kind="world", facts=facts, files=files)
    return meter.cost


def experiment_config(root: Path, *, is_quick: bool, workers: int | None) -> ExperimentConfig:
    """Raw pool against the balanced strategy, one seed, one budget."""
    return ExperimentConfig(
        name="demo",
        workspace=root,
        preset="demo_quick" if is_quick else "demo",
        seeds=(SEED,),
        conditions=(Condition(name="raw", role="baseline"), Condition(name="balanced", strategy=STRATEGY)),
        workers=workers or 2,
        resamples=1000 if is_quick else 2000,
    )


def demo_places(root: Path) -> Places:
    """The balanced run where a kit has its results, the raw one beside it."""
    output = Workspace(root).output
    return Places(
        root / "demo",
        data={"raw": root / "demo" / "raw" / "processed_data", "balanced": output / "processed_data"},
        trials={"raw": root / "demo" / "raw", "balanced": output},
    )


def _zip_folder(root: Path) -> Path:
    return root / "output" / "submission"


def run_demo(
    out: Path, *, is_quick: bool, seed: int = 0, workers: int | None = None, say: Say, command: str
) -> DemoResult:
    """Run everything that is not finished yet.

    Args:
        out: the demo's workspace, laid out as a challenge kit.
        is_quick: a few hundred pictures and a few training steps: shows that everything works, and nothing more.
        seed: of the world.
        workers: processes; the machine's cores when None.
        say: told of each finished part.
        command: what the user typed, for the report.
    """
    root = out.absolute()
    say(t("drawing the demo world"))
    costs = [prepare_workspace(root, sizes=QUICK if is_quick else DEMO, seed=seed)]
    config = experiment_config(root, is_quick=is_quick, workers=workers)
    places = demo_places(root)
    outcome = run_experiment(config, places, workers=workers, say=say)
    with Meter("report") as meter:
        report = _report(outcome, root, tuple(costs), command)
        build_report(report, root / "demo" / "report", root=root, thumbnail=thumbnail)
    costs += [*report.costs[len(costs) :], meter.cost]
    submission = _pack(root, say)
    return DemoResult(root, report, root / "demo" / "report" / PAGE, submission, tuple(costs))


def _report(outcome: Outcome, root: Path, costs: tuple[StageCost, ...], command: str) -> ReportInput:
    datasets = tuple(
        dataset_summary(
            outcome.places.data_folder(name),
            name=name,
            filter_quality=filter_quality(outcome.places.data_folder(name), root),
            is_relative_to=root,
        )
        for name in outcome.data_costs
    )
    page = report_input(outcome, title="bettersynth demo", command=command, is_demo=True, datasets=datasets)
    return replace(page, costs=(*costs, *page.costs))


def _pack(root: Path, say: Say) -> Path:
    """Submit the balanced run as the demo track's zip."""
    save_script(root, {"EXP_NAME": f"balanced-{SEED}"}, track="demo")
    folder = _zip_folder(root)
    submit(root, "demo", folder)
    say(t("packed {path}", path=folder / ZIP))
    return folder / ZIP


def plan_demo(out: Path, *, is_quick: bool, seed: int) -> list[tuple[str, str, str]]:
    """What `run_demo` would do: part, ``done`` or ``to do``, and a detail. Writes nothing."""
    root, sizes = out.absolute(), QUICK if is_quick else DEMO
    config = experiment_config(root, is_quick=is_quick, workers=None)
    has_world = is_world(root, sizes, seed)
    world = f"{sizes.pool} pairs, {sizes.instruct} instructions, seed {seed}"
    rows = [("world", t("done") if has_world else t("to do"), world)]
    if has_world:
        rows += part_rows(config, demo_places(root))
    else:  # nothing in the folder is of this world
        rows.append((t("the rest"), t("to do"), t("data, two trainings, answers and comparison")))
    is_done = all(state == t("done") for _, state, _ in rows)
    for part, place, detail in (("report", root / "demo" / "report", PAGE), ("submission", _zip_folder(root), ZIP)):
        rows.append((part, t("done") if is_done and Artifact.exists(place) else t("to do"), detail))
    return rows
