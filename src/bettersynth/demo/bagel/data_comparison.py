"""Does better data draw better? The tiny BAGEL trained on noisy captions, on what a recipe makes of them, on the truth.

The seed set is the demo world's, with its usual kinds of noise; the recipe is the balanced strategy, run by the engine;
captions become prompts. Everything else is the same for all: start, samples, seeds, prompts, noise of the drawings.
The pictures are read by rules and compared by the statistics of ``bettersynth compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from bettersynth.config.experiment import Condition, ExperimentConfig
from bettersynth.core.artifact import Artifact, write_manifest
from bettersynth.core.budget import Budget
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.core.record import EvalResult, StageCost
from bettersynth.demo.bagel import scores
from bettersynth.demo.bagel.tour import CONTINUED, WEIGHTS, write_model
from bettersynth.demo.controls import control_builders
from bettersynth.demo.tour import STRATEGY, is_world, prepare_workspace
from bettersynth.demo.world import build
from bettersynth.demo.world.composition import Prompt, Verdict, check, draw_prompts
from bettersynth.eval.intervals import bootstrap_interval, scaled
from bettersynth.experiment import tables
from bettersynth.experiment.compare import ComparisonTable, compare
from bettersynth.experiment.loop import StageData, make_data
from bettersynth.experiment.trials import TRIAL, Trial, TrialResult, run_trials
from bettersynth.experiment.workspace import Workspace
from bettersynth.formats.jsonl import write_rows
from bettersynth.formats.llava import read_llava
from bettersynth.formats.unified import drawing_records

Say = Callable[[str], None]

PART = "bagel_comparison"
"""Folder below the workspace that holds all of it."""
RECORDS = "records.jsonl"
_START = "none"
_SETTINGS = {**CONTINUED, "lr": 3e-4}
"""Of the trainings: a rate at which captions matter."""
_SIGNS = "text"
"""The category that is left out: so small a model draws no word that can be read, whatever it is trained on."""
_CHANCE = "an empty picture"


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is done.

    Attributes:
        world: the seed set's size; the other parts of the workspace are drawn with it.
        samples: of each training, repetitions counted.
        per_category: prompts of each of four categories.
        points: points in time of a drawing.
        seeds: trainings of each condition.
    """

    world: build.WorldSizes
    samples: int
    per_category: int
    points: int
    seeds: tuple[int, ...]


FULL = Amounts(build.DEMO, 3200, 40, 21, (1, 2, 3))
QUICK = Amounts(build.QUICK, 48, 2, 4, (1,))


@dataclass(frozen=True)
class Found:
    """What came out: all against the raw captions, and all against the start."""

    table: ComparisonTable
    against_start: ComparisonTable
    folder: Path


@dataclass(frozen=True)
class DrawingTrial:
    """Continue the start on one condition's records, draw all prompts, read the pictures: a ``RunTrial``."""

    start: Path
    records: Mapping[str, Path | None]
    images: Path
    cache: Path
    prompts: tuple[Prompt, ...]
    samples: int
    points: int

    def fingerprint(self, condition: str) -> str:
        """Digest of everything that the result depends on but the seed."""
        records = self.records[condition]
        return digest_json(
            {
                "start": digest_file(self.start / "ema.safetensors"),
                "records": None if records is None else digest_file(records),
                "prompts": [asdict(prompt) for prompt in self.prompts],
                "amounts": [self.samples, self.points],
                "settings": [_SETTINGS, scores.DRAWING],
            }
        )

    def __call__(self, condition: str, seed: int, folder: Path) -> TrialResult:
        """One trial; what is finished is not done again."""
        records, costs = self.records[condition], []
        model, budgets = self.start, {}
        if records is not None:
            trained = self._train(records, seed, folder / "training")
            model, run = trained.folder, trained.run
            budgets = {"training": Budget(int(trained.facts["samples_seen"]), _batch())}
            costs.append(StageCost("training", float(run["wall_s"]), float(run["cpu_s"])))
        pictures, cost = self._draw(model, seed, folder / "pictures")
        costs.append(cost)
        with Meter("reading") as meter:
            verdicts = _read(pictures.folder, self.prompts)
        costs.append(meter.cost)
        right = {verdict.prompt.id: verdict.is_right for verdict in verdicts}
        exact = {verdict.prompt.id: verdict.is_exact for verdict in verdicts}
        stamp = {
            "checkpoint": str(pictures.facts["model"]),
            "predictions": pictures.digest,
            "prompt": digest_json([prompt.text for prompt in self.prompts]),
            "decoding": digest_json([scores.DRAWING, self.points]),
            "data": digest_json([asdict(prompt) for prompt in self.prompts]),
            "protocol": "composition",
        }
        given = {"composition": right, "composition-exact": exact}
        results = tuple(_result(protocol, found, self.prompts, stamp) for protocol, found in given.items())
        numbers = {protocol: {key: float(value) for key, value in found.items()} for protocol, found in given.items()}
        return TrialResult(numbers, results, budgets, tuple(costs), facts={"records": _lines(records)})

    def _train(self, records: Path, seed: int, out: Path) -> Artifact:
        from bettersynth.train.callbacks import Callback
        from bettersynth.train.preset import load_preset, stage_settings
        from bettersynth.train.stages import run_stage

        places = {"data": records, "image_root": self.images, "init_from": self.start, "feature_cache": self.cache}
        changed = {**_SETTINGS, **places, "samples_seen": self.samples, "seed": seed}
        return run_stage(stage_settings(load_preset("bagel_demo"), 2, changed), out=out, progress=Callback())

    def _draw(self, model: Path, seed: int, folder: Path) -> tuple[Artifact, StageCost]:
        """The pictures of all prompts; every condition starts them from the same noise."""
        import torch

        from bettersynth.infer.unified import InterleaveInferencer, load_model
        from bettersynth.infer.unified_run import Job, model_digest, run_jobs
        from bettersynth.infer.unified_types import request_of

        torch.set_num_threads(1)
        options = {**scores.DRAWING, "num_timesteps": self.points, "output": ("image",)}
        jobs = [
            Job(prompt.id, request_of(prompt.text, {**options, "seed": number + 1000 * seed}))
            for number, prompt in enumerate(self.prompts)
        ]
        with Meter("drawing") as meter:
            inferencer = InterleaveInferencer(load_model(model))
            made = run_jobs(inferencer, jobs, folder, digest=model_digest(model), batch_size=scores.BATCH)
        return made, meter.cost


def _batch() -> int:
    from bettersynth.train.preset import load_preset

    return int(load_preset("bagel_demo").joint["global_batch"])


def _lines(records: Path | None) -> int:
    return 0 if records is None else len(records.read_text(encoding="utf-8").splitlines())


def _read(folder: Path, prompts: Sequence[Prompt]) -> list[Verdict]:
    found = []
    for prompt in prompts:
        with Image.open(folder / f"{prompt.id}-0.png") as picture:
            found.append(check(prompt, picture.convert("RGB")))
    return found


def _result(
    protocol: str, right: Mapping[str, bool], prompts: Sequence[Prompt], stamp: Mapping[str, str]
) -> EvalResult:
    values = [float(right[prompt.id]) for prompt in prompts]
    categories: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        categories.setdefault(prompt.category, []).append(value)
    interval = scaled(bootstrap_interval(values), 100)
    by_category = {name: (100 * sum(found) / len(found), len(found)) for name, found in categories.items()}
    return EvalResult(
        "composition", protocol, interval, len(values), 0.0, _CHANCE, interval.low <= 0.0, by_category, stamp
    )


def compare_data(root: Path, *, is_quick: bool, seed: int, workers: int, say: Say) -> Found:
    """Draw the world, process its seed set, train and draw for every condition and seed, compare.

    Args:
        root: a workspace of the demo, or a folder for a new one.
        is_quick: a few steps and pictures: shows that everything works, and nothing more.
        seed: of the world and of the prompts.
        workers: processes of the data engine, and trials side by side.
        say: told of each finished part.

    Raises:
        BetterSynthError: whatever stops a part; running again continues.
    """
    out, amounts = root / PART, QUICK if is_quick else FULL
    say(t("drawing the demo world"))
    prepare_workspace(root, sizes=amounts.world, seed=seed)
    start = _start(out / "start")
    records = _records(root, out, amounts, seed=seed, workers=workers, say=say)
    trial = DrawingTrial(
        start=start,
        records=records,
        images=Workspace(root).seed_folder,
        cache=out / "cache",
        prompts=wanted_prompts(amounts.per_category, seed),
        samples=amounts.samples,
        points=amounts.points,
    )
    config = experiment_config(root, amounts)
    wanted = [
        Trial(c.name, number, out / "trials" / f"{c.name}-{number}", trial.fingerprint(c.name))
        for number in config.seeds
        for c in config.conditions
    ]
    results = run_trials(
        wanted,
        trial,
        workers=workers,
        progress=lambda done, total, name: say(
            t("trained and evaluated {done}/{total} {name}", done=done, total=total, name=name)
        ),
    )
    table = compare(config, results)
    tables.write(table, results, out / "comparison")
    return Found(table, compare(config.model_copy(update={"baseline": _START}), results), out)


def conditions() -> tuple[Condition, ...]:
    """The noisy captions, what the balanced strategy makes of them, and two that no user would choose."""
    return (
        Condition(name="raw", role="baseline"),
        Condition(name="balanced", strategy=STRATEGY),
        Condition(name="clean", role="reference", note=t("true captions, which no user has")),
        Condition(name=_START, role="reference", note=t("the start, not trained on the seed set at all")),
    )


def experiment_config(root: Path, amounts: Amounts) -> ExperimentConfig:
    """Conditions and seeds."""
    return ExperimentConfig(
        name="bagel-data", workspace=root, preset="bagel_demo", seeds=amounts.seeds, conditions=conditions()
    )


def wanted_prompts(per_category: int, seed: int) -> tuple[Prompt, ...]:
    """Prompts of combinations that the start has never seen, those for signs left out."""
    return tuple(prompt for prompt in draw_prompts(per_category, seed=seed) if prompt.category != _SIGNS)


def plan_comparison(root: Path, *, is_quick: bool, seed: int) -> list[tuple[str, str, str]]:
    """What :func:`compare_data` would do: part, ``done`` or ``to do``, and a detail. Writes nothing."""
    out, amounts, rows = root.absolute() / PART, QUICK if is_quick else FULL, []
    is_drawn = is_world(root, amounts.world, seed)
    for condition in conditions():
        has_data = is_drawn and (out / "data" / condition.name / RECORDS).is_file()
        if condition.name != _START:
            rows.append((f"data {condition.name}", t("done") if has_data else t("to do"), str(amounts.world.pool)))
    for condition in conditions():
        names = [f"{condition.name}-{number}" for number in amounts.seeds]
        done = sum(is_drawn and (out / "trials" / name / TRIAL).is_file() for name in names)
        state = t("done") if done == len(amounts.seeds) else t("to do")
        rows.append((f"trials {condition.name}", state, f"{done}/{len(amounts.seeds)}"))
    return rows


def _start(folder: Path) -> Path:
    if not Artifact.exists(folder):
        write_model(folder, WEIGHTS)
        write_manifest(folder, kind="checkpoint", facts={}, files=sorted(path.name for path in folder.iterdir()))
    return folder


def _records(root: Path, out: Path, amounts: Amounts, *, seed: int, workers: int, say: Say) -> dict[str, Path | None]:
    """The text-to-image records of each condition, None for no training."""
    place = Workspace(root)
    truths = control_builders(root, pool=amounts.world.pool, seed=seed)["clean"]
    found: dict[str, Path | None] = {}
    for condition in conditions():
        folder = out / "data" / condition.name
        if condition.name == _START:
            found[_START] = None
            continue
        made: StageData | None = (
            truths(folder)
            if condition.name == "clean"
            else make_data(place, condition.strategy or condition.name, folder, budget=amounts.samples, workers=workers)
        )
        assert made is not None
        records, rejected = drawing_records(read_llava(made.path).records)
        if rejected:
            raise DataError(
                t("{n} records cannot be used", n=len(rejected)), where=str(made.path), got=rejected[0].reason
            )
        write_rows(folder / RECORDS, records)
        found[condition.name] = folder / RECORDS
        say(t("data of {name}: {rows} rows", name=condition.name, rows=len(records)))
    return found
