"""How far an experiment is: which parts are finished with the settings that would be used now. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bettersynth.config.experiment import ExperimentConfig
from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError
from bettersynth.core.fingerprint import canonical_json
from bettersynth.core.lang import t
from bettersynth.experiment.loop import strategy_recipe
from bettersynth.experiment.run import Places, budget_of
from bettersynth.experiment.workspace import Workspace

Row = tuple[str, str, str]
"""Part, ``done`` or ``to do``, detail."""


def part_rows(
    config: ExperimentConfig, places: Places, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Row]:
    """Data, both trainings and the answers of every trial, and the comparison.

    A part is done when its own result is there, made with these settings, and every part before it is done.

    Raises:
        ConfigError, DataError: a recipe or setting that would stop the run.
    """
    from bettersynth.train.stages import stage_folder

    workspace = Workspace(config.workspace)
    rows: list[tuple[str, bool, str]] = []
    have_data: dict[str, bool] = {}
    for condition in config.conditions:
        done, detail = _data(workspace, config.preset, condition.strategy or condition.name, places, condition.name)
        have_data[condition.name] = done
        rows.append((t("data: {name}", name=condition.name), done, detail))
    for seed in config.seeds:
        for condition in config.conditions:
            folder, name = places.trial_folder(condition.name, seed), f"{condition.name}-{seed}"
            done = have_data[condition.name]
            for stage, wanted in zip((1, 2), _stages(config, workspace, folder, name, seed, overrides), strict=True):
                done = done and _is_trained(wanted, stage_folder(folder, stage, name))
                rows.append((t("train: {name} stage {stage}", name=name, stage=stage), done, budget_text(wanted)))
            results = folder / "eval_results" / f"MGM-2B-Finetune-{name}"
            done = done and any(Artifact.exists(inner / "scores") for inner in results.glob("*"))
            rows.append((t("evaluate: {name}", name=name), done, " ".join(config.tasks)))
    is_compared = all(done for _, done, _ in rows) and Artifact.exists(places.root / "comparison")
    rows.append((t("comparison"), is_compared, t("{n} conditions", n=len(config.conditions))))
    return [(part, t("done") if done else t("to do"), detail) for part, done, detail in rows]


def _data(workspace: Workspace, preset: str, strategy: str, places: Places, name: str) -> tuple[bool, str]:
    from bettersynth.engine.plan import plan
    from bettersynth.engine.status import is_finished

    planned, out = plan(strategy_recipe(workspace, strategy, budget=budget_of(preset))), places.data_folder(name)
    detail = " > ".join(dict.fromkeys(step.operator for step in planned.describe())) or t("as it is")
    done = is_finished(planned, out)
    if not done and Artifact.exists(out):
        detail += "; " + t("takes the place of other data in {folder}", folder=out.name)
    return done, detail


def _stages(
    config: ExperimentConfig,
    workspace: Workspace,
    folder: Path,
    name: str,
    seed: int,
    overrides: Mapping[str, Mapping[str, Any]] | None,
) -> tuple[StageConfig, StageConfig]:
    from bettersynth.train.preset import load_preset, stage_settings

    preset, given = load_preset(config.preset), {"data": workspace.finetune_data, "model_zoo": workspace.model_zoo}
    own = config.condition(name.rpartition("-")[0]).training
    first, second = (
        stage_settings(
            preset, stage, {**given, **(overrides or {}).get(key, {}), **own.get(key, {}), "seed": seed}
        ).with_devices(1)
        for stage, key in ((1, "pretrain"), (2, "finetune"))
    )
    return first, second


def _is_trained(wanted: StageConfig, folder: Path) -> bool:
    """Whether a folder holds a stage finished with these settings; the run itself looks at the inputs too."""
    try:
        facts = Artifact.load(folder, kind="checkpoint").facts if Artifact.exists(folder) else {}
    except BetterSynthError:
        return False
    found = facts.get("identity", {}).get("settings")
    return found is not None and canonical_json(found) == canonical_json(wanted.result_settings())


def budget_text(stage: StageConfig) -> str:
    """What a stage shows of its data."""
    if stage.samples_seen:
        return t("{n} samples in batches of {batch}", n=stage.samples_seen, batch=stage.global_batch)
    return t(
        "{epochs} epoch(s), at most {n} samples, in batches of {batch}",
        epochs=stage.epochs,
        n=stage.max_samples or "-",
        batch=stage.global_batch,
    )
