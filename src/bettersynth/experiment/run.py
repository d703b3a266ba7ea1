"""Run an experiment from beginning to end: data per condition, trials, comparison. Every part resumes by itself.

`demo`, `run` and `compare` are this one function with different conditions and places.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bettersynth.config.experiment import Condition, ExperimentConfig
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.core.record import DatasetSummary, ReportInput, StageCost, TrainingSummary
from bettersynth.experiment import tables
from bettersynth.experiment.compare import ComparisonTable, compare
from bettersynth.experiment.loop import LLAVA_FILE, LoopTrial, StageData, make_data
from bettersynth.experiment.summary import dataset_summary, environment, training_summary
from bettersynth.experiment.trials import Trial, TrialResult, read_trial, run_trials
from bettersynth.experiment.workspace import Workspace

COMPARISON = "comparison"
EXPERIMENT = "experiment.json"
COST = "cost.json"

Say = Callable[[str], None]
DataBuilder = Callable[[Path], StageData | None]
"""Makes a condition's stage-1 data into a folder; for controls that no recipe can make (they use hidden labels)."""


@dataclass(frozen=True)
class Places:
    """Where an experiment writes.

    Args:
        root: everything that has no place of its own.
        data: condition -> folder of its processed data; ``root/data/CONDITION`` when not given.
        trials: condition (with one seed) or ``CONDITION-SEED`` -> folder of that trial; ``root/trials/CONDITION-SEED``
            when not given.
    """

    root: Path
    data: Mapping[str, Path] = field(default_factory=dict)
    trials: Mapping[str, Path] = field(default_factory=dict)

    def data_folder(self, key: str) -> Path:
        """Folder of a condition's (or ``condition@seed``'s) data."""
        return self.data.get(key, self.root / "data" / key)

    def trial_folder(self, condition: str, seed: int) -> Path:
        """Folder of one trial."""
        name = f"{condition}-{seed}"
        return self.trials.get(name, self.trials.get(condition, self.root / "trials" / name))


@dataclass(frozen=True)
class Outcome:
    """A finished experiment."""

    config: ExperimentConfig
    table: ComparisonTable
    trials: Mapping[str, Mapping[int, TrialResult]]
    data: Mapping[str, StageData | None]
    data_costs: Mapping[str, StageCost]
    places: Places


def run_experiment(
    config: ExperimentConfig,
    places: Places,
    *,
    builders: Mapping[str, DataBuilder] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int | None = None,
    say: Say = lambda _: None,
) -> Outcome:
    """Make the data of every condition, run all trials, compare.

    Args:
        config: conditions, seeds, preset, tasks.
        places: where to write.
        builders: conditions whose data no recipe makes.
        overrides: training keys to change per stage (refused by locked tracks unless they allow them).
        workers: processes of the data engine, and trials run side by side. When None: all cores for data, and for
            trials too unless there is a GPU, which one trial then has for itself.
        say: told of each finished part.

    Raises:
        BetterSynthError: whatever stops a part; running again continues.
    """
    cores = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    workspace = Workspace(config.workspace)
    _check_training(config, workspace)
    data, costs = _make_all_data(config, workspace, places, dict(builders or {}), cores, say)
    trial = LoopTrial(
        workspace=config.workspace,
        preset=config.preset,
        data=data,
        tasks=config.tasks,
        split=config.split,
        decoding=config.decoding.build() if config.decoding.is_set else None,
        batch_size=config.batch_size,
        limit=config.limit,
        resamples=config.resamples,
        overrides=overrides or {},
        by_condition={condition.name: condition.training for condition in config.conditions if condition.training},
        lenders=(lenders := _lenders(config, data, places)),
        is_quiet=len(config.seeds) * len(config.conditions) > 1,  # lines of trials side by side would mix
    )
    wanted = [
        Trial(c.name, seed, places.trial_folder(c.name, seed), trial.fingerprint(c.name, seed))
        for seed in config.seeds
        for c in config.conditions
    ]
    wanted.sort(key=lambda one: f"{one.condition}-{one.seed}" in lenders)  # who lends a stage 1 trains it first
    results = run_trials(
        wanted,
        trial,
        workers=workers or (1 if _has_gpu() else cores),
        progress=lambda done, total, name: say(
            t("trained and evaluated {done}/{total} {name}", done=done, total=total, name=name)
        ),
    )
    table = compare(config, results)
    tables.write(table, results, places.root / COMPARISON)
    _save_places(config, places)
    return Outcome(config, table, results, data, costs, places)


def _lenders(config: ExperimentConfig, data: Mapping[str, StageData | None], places: Places) -> dict[str, Path]:
    """Trials whose stage 1 an earlier condition trains too: same data, same keys, same seed -> the folder it is in."""
    from bettersynth.train.stages import stage_folder

    found: dict[str, Path] = {}
    for seed in config.seeds:
        first: dict[str, str] = {}
        for condition in config.conditions:
            stage = data[condition.name if condition.name in data else f"{condition.name}@{seed}"]
            if stage is not None:
                key = digest_json([stage.digest, condition.training.get("pretrain", {})])
                lender = first.setdefault(key, condition.name)
                if lender != condition.name:
                    trial = places.trial_folder(lender, seed)
                    found[f"{condition.name}-{seed}"] = stage_folder(trial, 1, f"{lender}-{seed}")
    return found


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _save_places(config: ExperimentConfig, places: Places) -> None:
    """Note what was run and where everything lies, so that the report can be made again; paths are relative."""

    def near(path: Path) -> str:
        return os.path.relpath(path.absolute(), places.root.absolute())

    document = {
        "config": config.model_dump(mode="json") | {"workspace": near(config.workspace)},
        "data": {key: near(path) for key, path in places.data.items()},
        "trials": {key: near(path) for key, path in places.trials.items()},
    }
    write_atomic(places.root / EXPERIMENT, json.dumps(document, indent=1, ensure_ascii=False).encode())


def load_outcome(root: Path) -> Outcome:
    """A finished experiment from its folder, for making its report again.

    Raises:
        DataError: nothing finished here, or changed files.
        ProvenanceError: a score that does not say where it comes from.
    """
    path = root / EXPERIMENT
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        base = root.absolute()
        folder = Path(os.path.normpath(base / raw["config"]["workspace"]))
        config = ExperimentConfig.model_validate_json(json.dumps(raw["config"] | {"workspace": str(folder)}))
        found = {part: {key: Path(os.path.normpath(base / p)) for key, p in raw[part].items()} for part in _PARTS}
        places = Places(root, found["data"], found["trials"])
    except FileNotFoundError as error:
        hint = t("make one with: bettersynth run, or bettersynth compare")
        raise DataError(t("no finished experiment here"), where=str(root), expected=EXPERIMENT, hint=hint) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(t("damaged file"), where=str(path), got=str(error)) from error
    trials: dict[str, dict[int, TrialResult]] = {}
    data: dict[str, StageData | None] = {}
    costs: dict[str, StageCost] = {}
    for condition in config.conditions:
        for seed in config.seeds:
            trial = read_trial(condition.name, seed, places.trial_folder(condition.name, seed))
            trials.setdefault(condition.name, {})[seed] = trial
        for key, seed in _data_keys(condition, config.seeds):
            place = places.data_folder(key)
            trained_on = trials[condition.name][min(config.seeds) if seed is None else seed].facts.get("data")
            data[key] = _still_there(place, str(trained_on))
            noted = _noted_cost(place, str(trained_on))
            if data[key] is not None and noted is not None:
                costs[key] = noted
    return Outcome(config, tables.load(root / COMPARISON), trials, data, costs, places)


_PARTS = ("data", "trials")


def _still_there(place: Path, digest: str) -> StageData | None:
    """The data that was trained on; None when there was none, or other data was made in its place since."""
    path = place / LLAVA_FILE
    return StageData(path, place, digest) if path.is_file() and digest_file(path) == digest else None


def _make_all_data(
    config: ExperimentConfig,
    workspace: Workspace,
    places: Places,
    builders: dict[str, DataBuilder],
    workers: int,
    say: Say,
) -> tuple[dict[str, StageData | None], dict[str, StageCost]]:
    data: dict[str, StageData | None] = {}
    costs: dict[str, StageCost] = {}
    made_as: dict[tuple[str, int | None], str] = {}
    for condition in config.conditions:
        strategy = condition.strategy or condition.name
        for key, seed in _data_keys(condition, config.seeds):
            folder = places.data_folder(key)
            if condition.name in builders:
                data[key] = builders[condition.name](folder)
                continue
            first = made_as.setdefault((strategy, seed), key)
            if first != key:  # conditions that differ in training alone read the same data
                data[key] = data[first]
                continue
            made = make_data(
                workspace,
                strategy,
                folder,
                budget=budget_of(config.preset),
                seed=seed,
                workers=workers,
                progress=None,
            )
            costs[key] = _first_cost(folder, made)
            data[key] = made
            say(t("data of {name}: {rows} rows", name=key, rows=made.facts.get("rows")))
    return data, costs


def _data_keys(condition: Condition, seeds: tuple[int, ...]) -> list[tuple[str, int | None]]:
    if condition.is_reseeded:
        return [(f"{condition.name}@{seed}", seed) for seed in seeds]
    return [(condition.name, None)]


def _first_cost(folder: Path, made: StageData) -> StageCost:
    """What making the data cost when it was made; a later run that finds the same data finished keeps that."""
    noted = _noted_cost(folder, made.digest)
    if noted is not None:
        return noted
    cost = made.cost or StageCost("process", 0.0, 0.0)
    write_atomic(folder / COST, json.dumps({"data": made.digest, **asdict(cost)}).encode())
    return cost


def _noted_cost(folder: Path, data: str) -> StageCost | None:
    """The noted cost of exactly this data; other data may have been made in the same place before."""
    try:
        raw = json.loads((folder / COST).read_text(encoding="utf-8"))
        return StageCost(**raw) if raw.pop("data") == data else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_training(config: ExperimentConfig, workspace: Workspace) -> None:
    """Refuse wrong training keys of conditions before anything is made."""
    from bettersynth.train.stages import TwoStageInputs, two_stage_configs

    for condition in config.conditions:
        if condition.training:
            inputs = TwoStageInputs(workspace.finetune_data, workspace.model_zoo, pretrain_data=workspace.seed_data)
            two_stage_configs(config.preset, inputs, out=Path(), name=condition.name, overrides=condition.training)


def budget_of(preset: str) -> int | None:
    """Samples that stage 1 of a preset sees: ``{budget}`` in recipes; None when it only counts epochs."""
    from bettersynth.train.preset import load_preset

    settings = load_preset(preset).pretrain
    value = settings.get("samples_seen") or settings.get("max_samples")
    return None if value is None else int(value)


def report_input(
    outcome: Outcome, *, title: str, command: str, is_demo: bool, datasets: tuple[DatasetSummary, ...] = ()
) -> ReportInput:
    """Everything the report page shows about an experiment."""
    table = outcome.table
    first_seed = min(outcome.config.seeds)
    trainings: list[TrainingSummary] = []
    for condition in outcome.config.conditions:
        folder = outcome.places.trial_folder(condition.name, first_seed) / "training_dirs"
        for stage in ("Pretrain", "Finetune"):
            path = folder / f"MGM-2B-{stage}-{condition.name}-{first_seed}"
            if path.is_dir():
                trainings.append(training_summary(path, name=condition.name))
    shown = datasets or tuple(
        dataset_summary(outcome.places.data_folder(name), name=name, is_relative_to=outcome.config.workspace.absolute())
        for name in outcome.data_costs
    )
    costs = list(outcome.data_costs.values())
    for name, by_seed in outcome.trials.items():
        for stage_cost in by_seed[first_seed].costs:
            costs.append(StageCost(f"{name}: {stage_cost.stage}", *_cost_values(stage_cost)))
    return ReportInput(
        title=title,
        command=command,
        is_demo=is_demo,
        datasets=shown,
        trainings=tuple(trainings),
        results=table.results,
        comparisons=table.comparisons,
        costs=tuple(costs),
        environment=environment(),
        digests={f"data {name}": made.digest for name, made in outcome.data.items() if made is not None},
        notes=table.notes,
        roles=table.roles,
    )


def _cost_values(cost: StageCost) -> tuple[float, float, float, int]:
    return cost.wall_s, cost.cpu_s, cost.gpu_s, cost.peak_rss_bytes


def strategy_conditions(strategy: str, *, has_baseline: bool) -> tuple[Condition, ...]:
    """The conditions of `run`: the user's strategy, with the raw pool beside it when asked for.

    Raises:
        ConfigError: the strategy is the baseline itself.
    """
    name = Path(strategy).stem
    if has_baseline and name == "raw":
        raise ConfigError(t("the baseline and the strategy are the same"), got=strategy)
    mine = Condition(name=name, strategy=strategy)
    return (Condition(name="raw", role="baseline"), mine) if has_baseline else (mine,)
