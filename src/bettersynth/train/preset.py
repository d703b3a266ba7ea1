"""The tracks' training recipes: one YAML file each, locked where the challenge's rules lock it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bettersynth.config.load import load_yaml
from bettersynth.config.train import (
    MACHINE_KEYS,
    ORIGINAL,
    PLACE_KEYS,
    SWITCHES,
    StageConfig,
    reproduced,
    stage_config,
)
from bettersynth.core.errors import ConfigError, RuleError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean

PRESETS = Path(__file__).parent / "presets"
_KEYS = ("track", "locked", "editable", "pretrain", "finetune", "joint")
_STAGES = {1: "pretrain", 2: "finetune"}

FREE_KEYS = (PLACE_KEYS - {"init_from", "bases"}) | MACHINE_KEYS | {"per_device_batch_size"}
"""What a locked track lets everyone change: data, places, how the global batch is split, logging and saving. The
challenge's editable block, plus machine settings that do not touch the result."""


@dataclass(frozen=True)
class Preset:
    """A track's recipe.

    Attributes:
        name: file name.
        track: ``online``, ``final``, ``10k``, ``demo`` or ``open``.
        locked: whether the rules fix the settings.
        editable: keys that this track leaves open beyond :data:`FREE_KEYS`.
        pretrain, finetune: settings of the two stages.
        joint: settings of the only stage of a family that has one.
    """

    name: str
    track: str
    locked: bool
    editable: tuple[str, ...]
    pretrain: Mapping[str, Any]
    finetune: Mapping[str, Any]
    joint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stages(self) -> dict[int, str]:
        """The stages there are, and the section of each."""
        return {2: "joint"} if self.joint else _STAGES

    def settings(self, stage: int) -> Mapping[str, Any]:
        """The settings of a stage; a joint training is stage 2 (its result is a whole checkpoint)."""
        if self.joint:
            return self.joint
        return self.pretrain if stage == 1 else self.finetune


def preset_names() -> list[str]:
    """The tracks of two stages there are."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if not _is_joint(path))


def joint_preset_names() -> list[str]:
    """The presets of families that train texts and pictures jointly, in one stage."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if _is_joint(path))


def _is_joint(path: Path) -> bool:
    return "\njoint:" in path.read_text(encoding="utf-8")


def load_preset(name: str | Path) -> Preset:
    """A track by name, or a YAML file of the same form.

    Raises:
        ConfigError, ConfigErrors: no such track, or mistakes in the file, with their lines.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = [*preset_names(), *joint_preset_names()]
        if str(name) not in known:
            raise ConfigError(
                t("unknown training preset '{name}'", name=name),
                expected=t("one of: {names}", names=", ".join(known)),
                hint=did_you_mean(str(name), known),
            )
        path = PRESETS / f"{name}.yaml"
    document = load_yaml(path)
    for key in document.data:
        if key not in _KEYS:
            raise ConfigError(
                t("unknown key '{name}'", name=key),
                where=document.where((key,)),
                expected=t("one of: {names}", names=", ".join(_KEYS)),
                hint=did_you_mean(key, _KEYS),
            )
    data = document.data
    preset = Preset(
        name=path.stem,
        track=str(data.get("track", "open")),
        locked=bool(data.get("locked", False)),
        editable=tuple(data.get("editable", ())),
        pretrain=dict(data.get("pretrain") or {}),
        finetune=dict(data.get("finetune") or {}),
        joint=dict(data.get("joint") or {}),
    )
    for stage in preset.stages:
        _check(preset, stage, str(path))
    return preset


def _check(preset: Preset, stage: int, where: str) -> None:
    """Refuse wrong keys of a preset when it is loaded, not when its stage comes up."""
    stand_ins = {"data": "data.json", "init_from" if preset.joint else "model_zoo": "model"}
    stage_config({**stand_ins, **preset.settings(stage), "stage": stage}, name=f"{where} {preset.stages[stage]}")


def stage_settings(preset: Preset, stage: int, overrides: Mapping[str, Any]) -> StageConfig:
    """A stage of a track with the user's changes.

    Args:
        overrides: keys of StageConfig; None values are left out.

    Raises:
        RuleError: a locked track does not allow a change; every refused key is listed with both values.
        ConfigError, ConfigErrors: unknown keys or wrong values.
    """
    given = reproduced({key: value for key, value in overrides.items() if value is not None})
    name = f"{preset.name} {preset.stages[stage]}"
    settings = dict(preset.settings(stage))
    if not preset.locked:  # two ways to say how long: the user's takes the preset's place
        for key, other in (("samples_seen", "epochs"), ("epochs", "samples_seen")):
            if key in given and other not in given:
                settings.pop(other, None)
    config = stage_config({**settings, **given, "stage": stage}, name=name)
    if preset.locked:
        _refuse_changes(preset, stage, config, given)
    return config


def _refuse_changes(preset: Preset, stage: int, config: StageConfig, given: Mapping[str, Any]) -> None:
    stand_ins = {key: given[key] for key in ("data", "model_zoo", "init_from", "bases") if key in given}
    original = stage_config({**stand_ins, **preset.settings(stage), "stage": stage})
    allowed = FREE_KEYS | set(preset.editable)
    reasons = []
    for key in given:
        if key == "reproduce" or (key in ORIGINAL and getattr(config, key) == ORIGINAL[key]):
            continue  # what the track's own trainer does
        if key in ("init_from", "bases") and key not in allowed:
            reasons.append(t("{key} is fixed on this track: the bases are the kit's", key=key))
        elif key in SWITCHES - allowed and getattr(config, key) != getattr(original, key):
            reasons.append(t("{key} changes how the model is trained, which this track does not allow", key=key))
        elif key not in allowed and getattr(config, key) != getattr(original, key):
            reasons.append(
                t(
                    "{key} is {fixed} on this track and cannot be {wanted}",
                    key=key,
                    fixed=getattr(original, key),
                    wanted=getattr(config, key),
                )
            )
    if reasons:
        raise RuleError(
            t("the track '{track}' locks these settings of stage {stage}", track=preset.track, stage=stage),
            reasons,
            hint=t("copy the preset file, set track: open and locked: false, and use it by its path"),
        )
