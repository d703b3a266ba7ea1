"""The loop of one trial: stage-1 data -> two-stage training -> answers -> scores; and making that data by a recipe.

Data is made once per condition (:func:`make_data`), before trials run side by side; a trial (:class:`LoopTrial`)
trains on it and evaluates for one seed. Every part resumes by itself, so running either again continues.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettersynth.config.load import load_yaml
from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import Artifact
from bettersynth.core.budget import Budget
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.core.record import StageCost
from bettersynth.core.registry import did_you_mean
from bettersynth.eval.protocol import resolve
from bettersynth.eval.runner import generate
from bettersynth.eval.score import score
from bettersynth.experiment.trials import TrialResult, gather
from bettersynth.experiment.workspace import Workspace
from bettersynth.formats.jsonl import read_rows
from bettersynth.formats.llava import dj_to_llava, questions_by_id, write_llava
from bettersynth.infer.protocols import Decoding

if TYPE_CHECKING:
    from bettersynth.train.callbacks import Callback

STRATEGIES = Path(__file__).parent / "strategies"
LLAVA_FILE = "llava_format.json"
_TURN = "[[human]]:"
_LARGE_BYTES = 64 << 20


@dataclass(frozen=True)
class StageData:
    """Stage-1 data ready for training: a LLaVA file, its pictures' folder, and the digest of the file."""

    path: Path
    images: Path
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    cost: StageCost | None = None


# ---------------------------------------------------------------- data


def strategy_names() -> list[str]:
    """The data strategies that come with the package."""
    return sorted(path.stem for path in STRATEGIES.glob("*.yaml"))


def strategy_path(strategy: str) -> Path:
    """The recipe of a strategy: one of ours by name, or a file.

    Raises:
        ConfigError: neither, with the nearest name.
    """
    for path in (STRATEGIES / f"{strategy}.yaml", Path(strategy)):
        if path.is_file():
            return path
    if Path(strategy).suffix in (".yaml", ".yml"):
        raise ConfigError(
            t("no such recipe file"),
            got=strategy,
            hint=t("or a strategy's name: {names}", names=", ".join(strategy_names())),
        )
    raise ConfigError(
        t("unknown {kind} '{name}'", kind="strategy", name=strategy),
        expected=", ".join(strategy_names()) or t("a recipe file"),
        hint=did_you_mean(strategy, strategy_names()),
    )


def variables(workspace: Workspace, budget: int | None = None) -> dict[str, str | int | float]:
    """What a recipe may name: ``{workspace}``, ``{seed_data}``, ``{image_root}``, ``{model_zoo}`` and ``{budget}``."""
    values: dict[str, str | int | float] = {
        "workspace": str(workspace.root.absolute()),
        "seed_data": str(workspace.seed_data.absolute()),
        "image_root": str(workspace.seed_folder.absolute()),
        # Not looked up: recipes without models run in a workspace without a model zoo.
        "model_zoo": str((workspace.root / "toolkit" / "training" / "model_zoo").absolute()),
    }
    return values if budget is None else values | {"budget": budget}


def strategy_recipe(
    workspace: Workspace,
    strategy: str,
    *,
    budget: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, str | int | float] | None = None,
) -> Recipe:
    """A strategy's recipe on a workspace's seed pool, checked and with its variables filled in.

    A recipe that names no data set gets the workspace's; a relative path is also looked up in the workspace, so that a
    kit's recipes work from anywhere.

    Args:
        strategy: name or recipe file.
        budget: samples that training will see; ``{budget}`` in the recipe.
        seed: replaces the recipe's seed, for conditions whose selection is random.
        overrides: ``KEY=VALUE`` texts, applied last.
        values: more variables, which win over the workspace's.
    """
    from bettersynth.engine.plan import read_recipe

    path = strategy_path(strategy)
    data = load_yaml(path).data
    changes = [] if seed is None else [f"seed={seed}"]
    named = data.get("dataset_path")
    if not named and not data.get("dataset"):
        changes.append(f"dataset_path={json.dumps(str(workspace.seed_data.absolute()))}")
        if not data.get("image_root"):
            changes.append(f"image_root={json.dumps(str(workspace.seed_folder.absolute()))}")
    elif isinstance(named, str) and not Path(named).exists() and (workspace.root / named).exists():
        changes.append(f"dataset_path={json.dumps(str((workspace.root / named).absolute()))}")
    known = {**variables(workspace, budget), **(values or {})}
    return read_recipe(path, overrides=[*changes, *overrides], variables=known)


def make_data(
    workspace: Workspace,
    strategy: str,
    out: Path,
    *,
    budget: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[Any], None] | None = None,
) -> StageData:
    """Run a strategy's recipe on the seed pool and convert the result to LLaVA form.

    Args:
        strategy: name or recipe file.
        out: gets the engine's result folder and ``llava_format.json``.
        budget: samples that training will see; ``{budget}`` in the recipe.
        seed: replaces the recipe's seed, for conditions whose selection is random.
        workers, progress: as in :func:`bettersynth.engine.local.process`.
    """
    from bettersynth.engine.local import process

    recipe = strategy_recipe(workspace, strategy, budget=budget, seed=seed)
    with Meter(f"process {strategy}") as meter:
        artifact = process(recipe, out=out, workers=workers, progress=progress)
        llava = convert(out / str(artifact.facts["data"]), workspace, out / LLAVA_FILE)
    facts = {"strategy": strategy, "dataset": artifact.digest, "rows": llava.facts["rows"]}
    return StageData(llava.path, llava.images, llava.digest, facts, meter.cost)


def found_data(folder: Path, workspace: Workspace) -> StageData:
    """Stage-1 data from a data set that was processed before; its LLaVA form is written anew.

    Raises:
        DataError: the folder holds no finished data set, or its rows were changed since.
    """
    artifact = Artifact.load(folder, kind="dataset")
    name = str(artifact.facts["data"])
    if name in artifact.verify():
        raise DataError(
            t("the processed rows were changed after they were made"),
            where=str(folder / name),
            hint=t("make them again with: bettersynth run data_only"),
        )
    llava = convert(folder / name, workspace, folder / LLAVA_FILE)
    facts = {"strategy": artifact.facts["name"], "dataset": artifact.digest, "rows": llava.facts["rows"]}
    return StageData(llava.path, llava.images, llava.digest, facts)


def convert(rows_file: Path, workspace: Workspace, out: Path) -> StageData:
    """Data-Juicer rows as the LLaVA file of stage 1: questions restored by id, except in rows that bring their own.

    Rows with ``[[human]]:`` turns come from open-track recipes; the challenge's locked conversion would take the turns
    for an answer, and a recipe of the challenge track may not make them.
    """
    records: list[dict[str, Any]] = []
    questions = questions_by_id(workspace.questions)
    for number, row in read_rows(rows_file):
        if not isinstance(row, dict):
            raise ConfigError(t("a processed row is damaged"), where=f"{rows_file}:{number}")
        is_open = _TURN in str(row.get("text", ""))
        records += dj_to_llava([row], questions=None if is_open else questions, restore_questions=not is_open)
    write_llava(out, records)
    return StageData(out, workspace.seed_folder, digest_file(out), {"rows": len(records)})


# ---------------------------------------------------------------- one trial


@dataclass(frozen=True)
class LoopTrial:
    """What one trial does; a :data:`bettersynth.experiment.trials.RunTrial` that other processes can receive.

    Args:
        workspace: root of the kit folder.
        preset: training preset (name or file).
        data: condition -> stage-1 data, None for "no stage 1"; ``condition@seed`` wins over ``condition``.
        tasks: prompt protocols, as in an evaluation.
        split: ``eval`` or ``dev``.
        decoding: greedy with the task's own length when None.
        resamples: of the intervals of single scores.
        overrides: changed training keys per stage (``pretrain``, ``finetune``); ``seed`` is set by the trial.
        by_condition: the same for single conditions, on top.
        lenders: ``CONDITION-SEED`` -> folder of the stage 1 of another trial that trains it from the same inputs. It
            is taken over when it is finished, and trained again when it is not.
    """

    workspace: Path
    preset: str
    data: Mapping[str, StageData | None]
    tasks: tuple[str, ...] = ("textvqa", "mmbench")
    split: str = "eval"
    decoding: Decoding | None = None
    batch_size: int = 32
    limit: int | None = None
    resamples: int = 2000
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by_condition: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    lenders: Mapping[str, Path] = field(default_factory=dict)
    is_quiet: bool = True

    def data_of(self, condition: str, seed: int) -> StageData | None:
        """The stage-1 data of a trial."""
        return self.data[f"{condition}@{seed}" if f"{condition}@{seed}" in self.data else condition]

    def fingerprint(self, condition: str, seed: int) -> str:
        """Digest of everything the result of a trial depends on, machine and place apart."""
        from bettersynth.train.preset import load_preset

        workspace, preset = Workspace(self.workspace), load_preset(self.preset)
        stage = self.data_of(condition, seed)
        questions = workspace.eval_folder(self.split)
        return digest_json(
            {
                "data": stage.digest if stage else None,
                "finetune": digest_file(workspace.finetune_data),
                "preset": [preset.pretrain, preset.finetune, self.overrides, self.by_condition.get(condition, {})],
                "tasks": resolve(self.tasks),
                "questions": {p.name: digest_file(p) for p in sorted(questions.rglob("*")) if p.suffix in _TEXT_FILES},
                "bases": _folder_digests(workspace.model_zoo),
                "asked": [self.decoding, self.limit, self.resamples],
            }
        )

    def __call__(self, condition: str, seed: int, folder: Path) -> TrialResult:
        """Train both stages and score every protocol; finished parts are not done again."""
        stage = self.data_of(condition, seed)
        adapter, checkpoint = self.train(condition, seed, folder, stage)
        scores, costs = self.evaluate(checkpoint, folder)
        trained = [_train_cost("stage 1", adapter)] if adapter is not None else []
        trained.append(_train_cost("stage 2", checkpoint))
        budgets = {"stage 2": _spent(checkpoint)} | ({} if adapter is None else {"stage 1": _spent(adapter)})
        facts = {"data": stage.digest if stage else "", "checkpoint": checkpoint.digest}
        if stage is not None:
            facts |= dict(stage.facts)
        return gather(scores, budgets=budgets, costs=(*trained, *costs), facts=facts)

    def train(
        self, condition: str, seed: int, folder: Path, stage: StageData | None
    ) -> tuple[Artifact | None, Artifact]:
        """Both stages into ``folder/training_dirs``; the first is left out without data."""
        from bettersynth.train.callbacks import Callback as Silent
        from bettersynth.train.stages import (
            TwoStageInputs,
            adopt_stage,
            run_two_stages,
            stage_folder,
            two_stage_configs,
        )

        workspace = Workspace(self.workspace)
        inputs = TwoStageInputs(
            finetune_data=workspace.finetune_data,
            model_zoo=workspace.model_zoo,
            pretrain_data=None if stage is None else stage.path,
            pretrain_images=None if stage is None else stage.images,
            finetune_images=workspace.finetune_data.parent,
        )
        shared = _shared_features(workspace, self.preset)
        own = self.by_condition.get(condition, {})
        overrides = {
            name: {**shared, **self.overrides.get(name, {}), **own.get(name, {}), "seed": seed}
            for name in ("pretrain", "finetune")
        }
        progress: Callback | None = Silent() if self.is_quiet else None
        name = f"{condition}-{seed}"
        if name in self.lenders:
            first, _ = two_stage_configs(self.preset, inputs, out=folder, name=name, overrides=overrides)
            if first is not None:
                adopt_stage(first, source=self.lenders[name], out=stage_folder(folder, 1, name))
        return run_two_stages(self.preset, inputs, out=folder, name=name, overrides=overrides, progress=progress)

    def evaluate(self, checkpoint: Artifact, folder: Path) -> tuple[list[Path], list[StageCost]]:
        """Ask and score a checkpoint under every protocol; ``folder/eval_results`` gets one folder per prompt protocol.

        Returns:
            The scores folders, and the seconds of asking and of scoring.
        """
        import torch

        from bettersynth.infer.checkpoint import CheckpointChatModel

        workspace = Workspace(self.workspace)
        questions = workspace.eval_folder(self.split)
        out = folder / "eval_results" / checkpoint.folder.name
        model = CheckpointChatModel(
            checkpoint.folder,
            batch_size=self.batch_size,
            device="cuda" if torch.cuda.is_available() else "cpu",
            model_zoo=workspace.model_zoo,
        )
        settings: dict[str, Any] = {"decoding": self.decoding, "batch_size": self.batch_size, "limit": self.limit}
        asked = [
            generate(protocol, model, questions, out / protocol, **settings) for _, protocol in resolve(self.tasks)
        ]
        with Meter("score") as scoring:
            scored = [
                score(artifact.folder, questions, checkpoint=model.digest, resamples=self.resamples).folder
                for artifact in asked
            ]
        return scored, [*(_asked_cost(artifact) for artifact in asked), scoring.cost]


_SHARED_FEATURES_BYTES = 1 << 30
_TEXT_FILES = (".jsonl", ".json", ".tsv")


def _folder_digests(folder: Path) -> dict[str, object]:
    """Digest of every small file, size and time of large ones (real bases are many gigabytes)."""
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        facts = path.stat()
        is_small = facts.st_size <= _LARGE_BYTES
        found[path.relative_to(folder).as_posix()] = (
            digest_file(path) if is_small else [facts.st_size, facts.st_mtime_ns]
        )
    return found


def _shared_features(workspace: Workspace, preset: str) -> dict[str, Any]:
    """The demo's trials train on the same pictures with the same frozen towers, so they share the towers' outputs.

    So do those of an open copy of its preset. At real sizes one picture takes 28 MB, and keeping them is left to the
    user (``feature_cache``).
    """
    from bettersynth.train.preset import load_preset

    loaded = load_preset(preset)
    if (
        loaded.track != "demo"
        and loaded.pretrain.get("image_size_aux") != load_preset("demo").pretrain["image_size_aux"]
    ):
        return {}
    return {"feature_cache": workspace.root / "cache" / "features", "feature_cache_bytes": _SHARED_FEATURES_BYTES}


def _asked_cost(artifact: Artifact) -> StageCost:
    cost = artifact.run["cost"]
    return StageCost(f"generate {artifact.facts['protocol']}", cost["wall_s"], cost["cpu_s"])


def _train_cost(name: str, artifact: Artifact) -> StageCost:
    run = artifact.run
    return StageCost(name, float(run["wall_s"]), float(run["cpu_s"]), peak_rss_bytes=int(run.get("peak_rss_bytes", 0)))


def _spent(artifact: Artifact) -> Budget:
    settings = artifact.facts["identity"]["settings"]
    return Budget(int(artifact.facts["samples_seen"]), int(settings["global_batch"]), int(settings.get("epochs", 1)))
