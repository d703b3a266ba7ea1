"""A user's own data in a kit folder: the whole loop or one part of it, into the places where a kit expects results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bettersynth.config.experiment import Condition, ExperimentConfig
from bettersynth.config.load import raise_all
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError, RuleError
from bettersynth.core.lang import t
from bettersynth.experiment.loop import LoopTrial, StageData, found_data
from bettersynth.experiment.run import Places, strategy_conditions
from bettersynth.experiment.workspace import Workspace

DEFAULT_STRATEGY = "advanced_data_processing"
DATA_FOLDER = "processed_data"


@dataclass(frozen=True)
class OwnRun:
    """What `run` was asked for.

    Args:
        workspace: the kit folder.
        strategy: name or recipe file; see :func:`pick_strategy`.
        preset: training preset (track).
        name: experiment name; the strategy's name when empty.
        seeds: one training each; the first one's results lie where the kit expects them.
        has_baseline: train on the raw pool too and compare.
        overrides: changed training keys per stage.
    """

    workspace: Path
    strategy: str
    preset: str
    name: str = ""
    seeds: tuple[int, ...] = (1,)
    has_baseline: bool = False
    tasks: tuple[str, ...] = ("textvqa", "mmbench")
    split: str = "eval"
    limit: int | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def place(self) -> Workspace:
        """The kit folder, looked into."""
        return Workspace(self.workspace)

    @property
    def condition(self) -> str:
        """The experiment's name."""
        return self.name or Path(self.strategy).stem

    @property
    def data_folder(self) -> Path:
        """Where the processed data goes."""
        return self.place.output / DATA_FOLDER

    def config(self) -> ExperimentConfig:
        """The run as an experiment of one condition, or of two with the baseline.

        Raises:
            ConfigError: the strategy is the baseline itself, or the name is not allowed.
        """
        *baseline, mine = strategy_conditions(self.strategy, has_baseline=self.has_baseline)
        try:
            named = Condition(name=self.condition, strategy=mine.strategy)
        except ValueError as error:
            expected = t("letters, digits, dots, dashes and underscores")
            raise ConfigError(t("not a name"), where="--name", got=self.condition, expected=expected) from error
        if baseline and named.name == baseline[0].name:
            raise ConfigError(t("the baseline and the strategy are the same"), where="--name", got=named.name)
        return ExperimentConfig(
            name=self.condition,
            workspace=self.workspace,
            preset=self.preset,
            seeds=self.seeds,
            conditions=(*baseline, named),
            tasks=self.tasks,
            split="dev" if self.split == "dev" else "eval",
            limit=self.limit,
        )

    def places(self) -> Places:
        """Own data and the first seed's training in ``output``; the rest in ``output/experiments/NAME``."""
        output = self.place.output
        first = f"{self.condition}-{min(self.seeds)}"
        return Places(
            output / "experiments" / self.condition,
            data={self.condition: self.data_folder},
            trials={first: output},
        )


def pick_strategy(workspace: Path, strategy: str | None) -> str:
    """A recipe of the kit's ``solution`` folder when it has one of that name, else the name (or file) as it is."""
    name = strategy or DEFAULT_STRATEGY
    mine = workspace / "solution" / f"{name}.yaml"
    return str(mine) if mine.is_file() else name


def pick_seeds(preset: str, count: int) -> tuple[int, ...]:
    """Seeds 1 to ``count``; the one seed that a track fixes, where it does.

    Raises:
        ConfigError: fewer than one, or an unknown preset.
        RuleError: the track fixes its seed and several were asked for.
    """
    from bettersynth.train.preset import load_preset

    if count < 1:
        raise ConfigError(t("at least one seed is needed"), where="--seeds", got=count)
    loaded = load_preset(preset)
    if not loaded.locked or "seed" in loaded.editable:
        return tuple(range(1, count + 1))
    seed = int(loaded.pretrain.get("seed", 0))
    if count > 1:
        raise RuleError(
            t("the track '{track}' fixes its seed, so there is one training", track=loaded.track),
            [t("seed is {fixed} on this track", fixed=seed)],
            hint=t("several seeds need a preset that leaves seed open; copy the preset file and use it by its path"),
        )
    return (seed,)


def check_training(run: OwnRun, *, has_models: bool = True) -> None:
    """Refuse missing inputs and wrong settings of either stage before any data is made: stage 2 comes up after hours.

    Args:
        has_models: look for the base models too; a plan needs none.

    Raises:
        BetterSynthError: what is missing, keys, values, locked settings or batch arithmetic, all together.
    """
    from bettersynth.train.preset import load_preset, stage_settings
    from bettersynth.train.zoo import zoo_problems

    problems = run.place.missing()
    if has_models and (run.workspace / "toolkit/training/model_zoo").is_dir():
        problems += zoo_problems(run.place.model_zoo)
    loaded = load_preset(run.preset)
    for stage, key in ((1, "pretrain"), (2, "finetune")):
        given = {"data": "-", "model_zoo": "-", "seed": min(run.seeds)}
        try:
            stage_settings(loaded, stage, {**given, **run.overrides.get(key, {})}).with_devices(1)
        except BetterSynthError as error:
            problems.append(error)
    raise_all(problems, where=str(run.workspace))


def stage_budgets(preset: str) -> dict[str, str]:
    """What each stage shows of its data under a preset, in words."""
    from bettersynth.experiment.state import budget_text
    from bettersynth.train.preset import load_preset, stage_settings

    loaded, places = load_preset(preset), {"data": "-", "model_zoo": "-"}
    stages = ((1, "pretrain"), (2, "finetune"))
    return {name: budget_text(stage_settings(loaded, stage, places).with_devices(1)) for stage, name in stages}


def plan_rows(run: OwnRun) -> list[tuple[str, str, str]]:
    """What a whole run would do: part, whether it is done, and a detail. Writes nothing.

    Raises:
        ConfigError, DataError: what would stop it from starting.
    """
    from bettersynth.experiment.state import part_rows

    check_training(run, has_models=False)
    return part_rows(run.config(), run.places(), run.overrides)


def train_only(run: OwnRun) -> list[Artifact]:
    """Both stages on data that was processed before, once per seed; live progress on stderr.

    Raises:
        DataError: there is no processed data yet.
    """
    config, places = run.config(), run.places()
    if not Artifact.exists(run.data_folder):
        raise DataError(
            t("no processed data yet"),
            where=str(run.data_folder),
            hint=t("make it with: bettersynth run data_only"),
        )
    check_training(run)
    data = found_data(run.data_folder, run.place)
    trial = _trial(run, config, data)
    made = []
    for seed in config.seeds:
        folder = places.trial_folder(run.condition, seed)
        made += [stage for stage in trial.train(run.condition, seed, folder, data) if stage is not None]
    return made


def evaluate_only(run: OwnRun, say: Callable[[str], None]) -> dict[str, list[Path]]:
    """Ask and score the models that were trained before; returns the scores folders by model name.

    Raises:
        DataError: no trained model of that name and seed, with those that there are.
    """
    config, places = run.config(), run.places()
    trial = _trial(run, config, None)
    found: dict[str, list[Path]] = {}
    for seed in config.seeds:
        folder = places.trial_folder(run.condition, seed)
        name = f"MGM-2B-Finetune-{run.condition}-{seed}"
        checkpoint = folder / "training_dirs" / name
        if not Artifact.exists(checkpoint):
            there = sorted(path.parent.name for path in folder.glob("training_dirs/*Finetune*/manifest.json"))
            raise DataError(
                t("no trained model of that name"),
                where=str(checkpoint),
                got=", ".join(there) or t("none"),
                hint=t("train it with: bettersynth run train_only, or give --name"),
            )
        say(t("asking {name}", name=name))
        scores, _ = trial.evaluate(Artifact.load(checkpoint, kind="checkpoint"), folder)
        found[name] = scores
    return found


def _trial(run: OwnRun, config: ExperimentConfig, data: StageData | None) -> LoopTrial:
    return LoopTrial(
        workspace=config.workspace,
        preset=config.preset,
        data={run.condition: data},
        tasks=config.tasks,
        split=config.split,
        limit=config.limit,
        overrides=run.overrides,
        is_quiet=False,
    )
