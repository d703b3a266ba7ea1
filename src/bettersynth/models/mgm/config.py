"""Sizes and names of an MGM model, read from and written to the ``config.json`` of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, GemmaConfig

from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors
from bettersynth.core.lang import t
from bettersynth.models.family import BaseFolders
from bettersynth.models.weights import read_json

STEM_STRIDE = 4
TRUNK_STRIDE = 32
CONFIG_FILE = "config.json"
ACTIVATIONS = ("gelu", "gelu_pytorch_tanh")
"""``gelu`` is the exact erf form here, as the original was trained; current transformers silently read it as tanh."""

_GEMMA_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
    *("pad_token_id", "eos_token_id", "bos_token_id", "attention_bias", "attention_dropout", "rope_parameters"),
)

_VISION_FIELDS = (
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout"),
    *("initializer_range", "initializer_factor"),
)

MM_DEFAULTS: dict[str, Any] = {
    "mm_projector_type": "mlp2x_gelu",
    "use_mm_proj": True,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_grid": 1,
    "image_global": False,
    "image_aspect_ratio": "square",
    "image_grid_pinpoints": None,
    "optimize_vision_tower": False,
    "optimize_vision_tower_aux": False,
    "tune_mm_mlp_adapter": False,
    "freeze_mm_mlp_adapter": False,
    "mm_projector_lr": None,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "tokenizer_padding_side": "right",
    "tokenizer_model_max_length": 2048,
}
"""Fields that files of the original authors may lack, with what they then mean."""


@dataclass(frozen=True)
class MgmConfig:
    """All sizes of one model.

    Attributes:
        fields: the whole ``config.json``, unknown keys included, so that nothing is lost on a round trip.
        vision: configuration of the CLIP vision tower.
        depths: ConvNeXt blocks per stage.
        dims: ConvNeXt channels per stage.
    """

    fields: Mapping[str, Any]
    vision: Mapping[str, Any]
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    source: str = field(default="", compare=False)

    def get(self, key: str) -> Any:
        """A field of ``config.json``, or its documented default."""
        return self.fields.get(key, MM_DEFAULTS.get(key))

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.fields["hidden_size"])

    @property
    def image_size_low(self) -> int:
        """Side of the low-resolution view in pixels."""
        return int(self.vision["image_size"])

    @property
    def image_size_aux(self) -> int:
        """Side of the picture handed to the high-resolution tower in pixels."""
        return int(self.get("image_size_aux"))

    @property
    def tokens_per_view(self) -> int:
        """Low-resolution tokens of one view (576 in MGM-2B)."""
        return (self.image_size_low // int(self.vision["patch_size"])) ** 2

    @property
    def num_views(self) -> int:
        """Views per picture: one, or in HD mode the crops plus perhaps the whole picture."""
        grid = int(self.get("image_grid"))
        return grid * grid + (1 if grid > 1 and self.get("image_global") else 0)

    @property
    def tokens_per_image(self) -> int:
        """How many positions a picture takes in the language model."""
        return self.tokens_per_view * self.num_views

    @property
    def vision_layers(self) -> int:
        """How many CLIP layers are run: hidden state -2 is the output of the last layer but one."""
        return int(self.vision["num_hidden_layers"]) + 1 + int(self.get("mm_vision_select_layer"))

    @property
    def is_exact_gelu(self) -> bool:
        """Whether the language model uses the erf form of GELU."""
        return self.fields.get("hidden_act", "gelu") == "gelu"

    def gemma(self, attention: str = "sdpa") -> GemmaConfig:
        """Configuration of the language model; its activation is set by the model builder, see ``is_exact_gelu``."""
        known = {key: self.fields[key] for key in _GEMMA_FIELDS if key in self.fields}
        if "rope_theta" in self.fields:
            known.setdefault("rope_parameters", {"rope_type": "default", "rope_theta": self.fields["rope_theta"]})
        config = GemmaConfig(**known, hidden_act="gelu_pytorch_tanh", use_cache=True)
        config._attn_implementation = attention
        return config

    def clip(self, attention: str = "sdpa") -> CLIPVisionConfig:
        """Configuration of the low-resolution tower."""
        config = CLIPVisionConfig(**{key: value for key, value in self.vision.items() if key in _VISION_FIELDS})
        config._attn_implementation = attention
        return config

    def with_fields(self, **changes: Any) -> MgmConfig:
        """A copy with some ``config.json`` fields changed."""
        return replace(self, fields={**self.fields, **changes})

    def to_json(self) -> dict[str, Any]:
        """What is written as ``config.json``: the fields of the original plus the sizes of both towers."""
        return {
            **{key: value for key, value in MM_DEFAULTS.items() if key not in self.fields},
            **self.fields,
            "mm_hidden_size": int(self.vision["hidden_size"]),
            "mm_hidden_size_aux": sum(self.dims),
            "mm_vision_config": {key: self.vision[key] for key in _VISION_FIELDS if key in self.vision},
            "mm_vision_aux_config": {"depths": list(self.depths), "dims": list(self.dims)},
        }

    def check(self) -> MgmConfig:
        """Refuse sizes that do not fit together, all at once, before anything is built.

        Raises:
            ConfigErrors: every mismatch found.
        """
        problems: list[BetterSynthError] = []

        def refuse(message: str, key: str, expected: str) -> None:
            problems.append(ConfigError(message, where=key, got=self.get(key), expected=expected))

        grid, side = int(self.get("image_grid")), math.isqrt(self.tokens_per_view)
        step = math.lcm(STEM_STRIDE * side * grid, TRUNK_STRIDE)
        if self.image_size_aux <= 0 or self.image_size_aux % step:
            refuse(
                t("the high-resolution picture cannot be cut into one region per token"),
                "image_size_aux",
                t("a multiple of {n}", n=step),
            )
        for key, wanted in (
            ("mm_projector_type", "mlp2x_gelu"),
            ("mm_vision_select_feature", "patch"),
            ("mm_hidden_size", self.vision["hidden_size"]),
            ("mm_hidden_size_aux", sum(self.dims)),
        ):
            if self.get(key) not in (wanted, None):
                refuse(t("unsupported value"), key, str(wanted))
        if self.fields.get("hidden_act", "gelu") not in ACTIVATIONS:
            refuse(t("unsupported value"), "hidden_act", t("one of: {names}", names=", ".join(ACTIVATIONS)))
        if not 0 < self.vision_layers <= int(self.vision["num_hidden_layers"]):
            refuse(
                t("unsupported value"), "mm_vision_select_layer", "-1 ... -{}".format(self.vision["num_hidden_layers"])
            )
        if problems:
            raise ConfigErrors(problems, where=self.source or None)
        return self


def clip_vision_fields(folder: Path) -> dict[str, Any]:
    """The vision part of a CLIP folder's config, whether it describes the tower alone or the whole of CLIP."""
    whole = read_json(folder / CONFIG_FILE)
    vision = whole.get("vision_config", whole)
    defaults = CLIPVisionConfig().to_dict()
    return {key: vision.get(key, defaults[key]) for key in _VISION_FIELDS if key in defaults or key in vision}


def zoo_name(folder: Path) -> str:
    """How a checkpoint names a base folder: from ``model_zoo`` on, as the original's configs do.

    A checkpoint then does not depend on where it was made, and its digest neither. Folders outside of a model zoo
    keep their path.
    """
    parts = folder.parts
    if "model_zoo" not in parts:
        return str(folder)
    start = len(parts) - 1 - parts[::-1].index("model_zoo")
    return "/".join(parts[start:])


def config_from_bases(spec: BaseFolders, depths: list[int], dims: list[int]) -> MgmConfig:
    """The configuration of a fresh model over three base folders."""
    fields = read_json(spec.llm / CONFIG_FILE)
    fields.pop("transformers_version", None)
    if isinstance(fields.get("rope_parameters"), dict) and "rope_theta" not in fields:
        fields["rope_theta"] = fields["rope_parameters"].get("rope_theta", 10000.0)
    vision = clip_vision_fields(spec.vision_tower)
    fields = {
        **MM_DEFAULTS,
        **fields,
        "_name_or_path": zoo_name(spec.llm),
        "model_type": "mgm_gemma",
        "mm_vision_tower": zoo_name(spec.vision_tower),
        "mm_vision_tower_aux": zoo_name(spec.vision_tower_aux),
        "mm_hidden_size": vision["hidden_size"],
        "mm_hidden_size_aux": sum(dims),
        "image_size_aux": spec.image_size_aux,
        "image_grid": spec.image_grid,
        "image_global": spec.image_global,
        "image_aspect_ratio": spec.image_aspect_ratio,
        "tokenizer_model_max_length": spec.model_max_length,
    }
    return MgmConfig(fields, vision, tuple(depths), tuple(dims), str(spec.llm / CONFIG_FILE)).check()
