"""Models by their sizes alone, and samples as large as they can be: what a plan needs before there are weights."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from bettersynth.config.load import load_yaml, raise_all
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import BagelConfig, LlmConfig, VaeConfig, VitConfig
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.packing import PlanItem, Sample

PRESETS = Path(__file__).parent.parent / "presets"
_SECTIONS = {"llm": LlmConfig, "vit": VitConfig, "vae": VaeConfig, "glue": BagelConfig}


def preset_names() -> list[str]:
    """The BAGEL presets there are, by file name."""
    return sorted(path.stem for path in PRESETS.glob("bagel_*.yaml"))


def preset_config(name: str) -> BagelConfig:
    """The sizes of a preset (``models/presets/NAME.yaml``), or of a YAML file of that form given by its path.

    Raises:
        ConfigError, ConfigErrors: no such preset, unknown sections or keys, sizes that do not fit together.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            t("unknown model preset '{name}'", name=name),
            expected=t("one of: {names}", names=", ".join(preset_names())),
            hint=did_you_mean(name, preset_names()),
        )
    data = load_yaml(path).data
    problems: list[BetterSynthError] = []
    for section, values in data.items():
        known = {field.name for field in fields(_SECTIONS[section])} if section in _SECTIONS else set(data)
        if section != "family" and section not in _SECTIONS:
            problems.append(ConfigError(t("unknown key '{name}'", name=section), hint=did_you_mean(section, _SECTIONS)))
        elif section != "family":
            unknown = sorted(set(values) - known)
            problems += [
                ConfigError(t("unknown key '{name}'", name=f"{section}.{key}"), hint=did_you_mean(key, sorted(known)))
                for key in unknown
            ]
    raise_all(problems, where=str(path))
    vae: dict[str, Any] = dict(data.get("vae", {}))
    if "ch_mult" in vae:
        vae["ch_mult"] = tuple(vae["ch_mult"])
    return BagelConfig(
        LlmConfig(**data.get("llm", {})), VitConfig(**data.get("vit", {})), VaeConfig(**vae), **data.get("glue", {})
    ).check(str(path))


def build_empty(config: BagelConfig) -> BagelModel:
    """The model with its autoencoder, without memory for its tensors (meta device)."""
    with torch.device("meta"):
        model = BagelModel(config)
        model.set_autoencoder(AutoEncoder(config.vae))
    return model


def image_tokens(config: BagelConfig) -> int:
    """Tokens of one picture to be seen and one to be drawn, both as large as the tables of positions allow."""
    return config.vit_max_num_patch_per_side**2 + config.max_latent_size**2 + 4


def example_sample(config: BagelConfig, num_tokens: int) -> Sample:
    """A picture to be seen, a question, an answer that is learnt, and a picture that is drawn: of that many tokens."""
    text = max(2, num_tokens - image_tokens(config) - 4)
    answer = (text + 1) // 2
    seen = config.vit_max_num_patch_per_side * config.vit.patch_size
    drawn = config.max_latent_size * config.latent_stride_px
    plan = (
        PlanItem(type="vit_image"),
        PlanItem(type="text"),
        PlanItem(type="text", loss=True),
        PlanItem(type="vae_image", loss=True),
    )
    return Sample(plan, ((0,) * (text - answer), (0,) * answer), ((seen, seen), (drawn, drawn)))
