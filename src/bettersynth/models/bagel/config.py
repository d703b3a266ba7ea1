"""Sizes of a BAGEL model, read from and written to the official folder (``llm_config.json``, ``vit_config.json``).

The official folder says nothing about the glue and the autoencoder: there they are constants. Ours may, in two more
files (``bagel_config.json``, ``vae_config.json``), so that small models keep their sizes. Absent files mean constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors
from bettersynth.core.lang import t
from bettersynth.models.bagel.files import GLUE_FILE, LLM_FILE, VAE_FILE, VIT_FILE
from bettersynth.models.weights import read_json

SPECIAL_FILE = "special_tokens.json"
MOT_LAYER = "Qwen2MoTDecoderLayer"

_FORCED = {"qk_norm": True, "tie_word_embeddings": False, "layer_module": MOT_LAYER}
"""What the original's loaders set whatever the file says."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the four markers: begin and end of a text, begin and end of an image."""

    bos: int = 151644
    eos: int = 151645
    image_start: int = 151652
    image_end: int = 151653

    NAMES = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    KEYS = ("bos_token_id", "eos_token_id", "start_of_image", "end_of_image")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SpecialTokens:
        """From the keys of ``special_tokens.json``."""
        return cls(*(int(value[key]) for key in cls.KEYS))

    def to_json(self) -> dict[str, int]:
        """The keys of ``special_tokens.json``."""
        return dict(zip(self.KEYS, (self.bos, self.eos, self.image_start, self.image_end), strict=True))


@dataclass(frozen=True, slots=True)
class LlmConfig:
    """The decoder: a Qwen2 shape. ``head_dim`` follows from hidden size and heads."""

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32768

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, slots=True)
class VitConfig:
    """The SigLIP encoder as its file says; the model builds fewer layers, see :attr:`BagelConfig.vit_layers`."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 980
    patch_size: int = 14
    layer_norm_eps: float = 1e-6

    @property
    def table_side(self) -> int:
        """Rows (and columns) of the learned position table."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """The FLUX-style autoencoder."""

    in_channels: int = 3
    out_ch: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159

    @property
    def downsample(self) -> int:
        """Pixels per latent position and side."""
        return 2 ** (len(self.ch_mult) - 1)


@dataclass(frozen=True, slots=True)
class BagelConfig:
    """All sizes of one model.

    Attributes:
        llm, vit, vae: the three networks.
        special: ids of the markers.
        latent_patch_size: latent positions per token and side.
        max_latent_size: side of the table of latent positions; must be that of the training.
        vit_max_num_patch_per_side: side of the table of ViT positions in the decoder.
        interpolate_pos: whether positions are stretched over the table instead of counted from its corner.
        timestep_shift: shift of the training's time.
        vit_select_layer: -2 drops the last encoder layer.
        extra: whole files as read, so that unknown keys survive a round trip.
    """

    llm: LlmConfig = LlmConfig()
    vit: VitConfig = VitConfig()
    vae: VaeConfig = VaeConfig()
    special: SpecialTokens = SpecialTokens()
    latent_patch_size: int = 2
    max_latent_size: int = 64
    vit_max_num_patch_per_side: int = 70
    interpolate_pos: bool = False
    timestep_shift: float = 1.0
    vit_select_layer: int = -2
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def vit_layers(self) -> int:
        """Encoder layers that exist: hidden state -2 is the output of the last layer but one."""
        return self.vit.num_hidden_layers + 1 + self.vit_select_layer

    @property
    def latent_dim(self) -> int:
        """Numbers per latent token."""
        return self.latent_patch_size**2 * self.vae.z_channels

    @property
    def latent_stride_px(self) -> int:
        """Pixels per latent token and side (16)."""
        return self.vae.downsample * self.latent_patch_size

    def check(self, where: str | None = None) -> BagelConfig:
        """Refuse sizes that do not fit together, all at once.

        Raises:
            ConfigErrors: every mismatch found.
        """
        llm, vit, problems = self.llm, self.vit, list[BetterSynthError]()
        rules = (
            (llm.hidden_size % llm.num_attention_heads == 0, "hidden_size", llm.hidden_size, llm.num_attention_heads),
            (
                llm.num_attention_heads % llm.num_key_value_heads == 0,
                "num_attention_heads",
                llm.num_attention_heads,
                llm.num_key_value_heads,
            ),
            (llm.hidden_size % 4 == 0, "hidden_size", llm.hidden_size, 4),
            (llm.head_dim % 2 == 0, "head_dim", llm.head_dim, 2),
            (
                vit.hidden_size % vit.num_attention_heads == 0,
                "vit hidden_size",
                vit.hidden_size,
                vit.num_attention_heads,
            ),
            (self.vae.ch % 32 == 0, "vae ch", self.vae.ch, 32),
        )
        for is_right, key, got, divisor in rules:
            if not is_right:
                problems.append(
                    ConfigError(t("unsupported value"), where=key, got=got, expected=t("a multiple of {n}", n=divisor))
                )
        if not 0 < self.vit_layers <= vit.num_hidden_layers:
            problems.append(
                ConfigError(
                    t("unsupported value"),
                    where="vit_select_layer",
                    got=self.vit_select_layer,
                    expected=f"-1 ... -{vit.num_hidden_layers}",
                )
            )
        if problems:
            raise ConfigErrors(problems, where=where)
        return self

    def files(self) -> dict[str, dict[str, Any]]:
        """The JSON files of a saved folder, by name: what was read, with our sizes over it."""
        read = dict(self.extra)
        glue = {key: getattr(self, key) for key in _GLUE_KEYS}
        llm = {"model_type": "qwen2", "hidden_act": "silu", **read.get(LLM_FILE, {}), **_as_dict(self.llm), **_FORCED}
        vit = {"model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh", **read.get(VIT_FILE, {})}
        return {
            LLM_FILE: llm,
            VIT_FILE: {**vit, **_as_dict(self.vit)},
            VAE_FILE: {**read.get(VAE_FILE, {}), **_as_dict(self.vae), "downsample": self.vae.downsample},
            GLUE_FILE: {**read.get(GLUE_FILE, {}), **glue, "layer_module": MOT_LAYER},
            SPECIAL_FILE: self.special.to_json(),
        }


_GLUE_KEYS = (
    *("latent_patch_size", "max_latent_size", "vit_max_num_patch_per_side", "interpolate_pos", "timestep_shift"),
    "vit_select_layer",
)


def _as_dict(part: Any) -> dict[str, Any]:
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _pick(kind: Any, read: Mapping[str, Any]) -> Any:
    known = {field.name: read[field.name] for field in fields(kind) if read.get(field.name) is not None}
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in known.items()})


def _refuse_unsupported(read: Mapping[str, Mapping[str, Any]]) -> list[BetterSynthError]:
    """Settings of the files that another network would need."""
    checks = (
        (LLM_FILE, "hidden_act", ("silu",)),
        (LLM_FILE, "rope_scaling", ()),
        (VIT_FILE, "hidden_act", ("gelu_pytorch_tanh",)),
        (GLUE_FILE, "connector_act", ("gelu_pytorch_tanh",)),
        (GLUE_FILE, "vit_rope", (False,)),
        (GLUE_FILE, "layer_module", (MOT_LAYER,)),
    )
    problems: list[BetterSynthError] = []
    for file, key, allowed in checks:
        value = read.get(file, {}).get(key)
        if value is not None and value not in allowed:
            expected = ", ".join(map(str, allowed)) or t("nothing")
            problems.append(ConfigError(t("unsupported value"), where=f"{file} {key}", got=value, expected=expected))
    return problems


def load_config(folder: Path, *, special: SpecialTokens | None = None, latent_rows: int | None = None) -> BagelConfig:
    """The configuration of an official folder.

    Args:
        folder: holds ``llm_config.json`` and ``vit_config.json``, and perhaps our two further files.
        special: marker ids looked up in the tokenizer; by default those of ``special_tokens.json``, else Qwen2.5's.
        latent_rows: rows of the stored table of latent positions; decides ``max_latent_size`` when no file does.

    Raises:
        DataError: a file is missing or unreadable.
        ConfigErrors: sizes that do not fit, or settings of another network.
    """
    read = {LLM_FILE: read_json(folder / LLM_FILE), VIT_FILE: read_json(folder / VIT_FILE)}
    read |= {name: read_json(folder / name) for name in (VAE_FILE, GLUE_FILE) if (folder / name).is_file()}
    problems = _refuse_unsupported(read)
    if problems:
        raise ConfigErrors(problems, where=str(folder))
    vit = _pick(VitConfig, read[VIT_FILE])
    glue: dict[str, Any] = {"vit_max_num_patch_per_side": vit.table_side}
    if latent_rows is not None:
        glue["max_latent_size"] = round(latent_rows**0.5)
    glue |= {key: read[GLUE_FILE][key] for key in _GLUE_KEYS if key in read.get(GLUE_FILE, {})}
    if special is None and (folder / SPECIAL_FILE).is_file():
        special = SpecialTokens.from_json(read_json(folder / SPECIAL_FILE))
    config = BagelConfig(
        llm=_pick(LlmConfig, read[LLM_FILE]),
        vit=vit,
        vae=_pick(VaeConfig, read.get(VAE_FILE, {})),
        special=special or SpecialTokens(),
        extra=tuple(read.items()),
        **glue,
    )
    return config.check(str(folder))
