"""The BAGEL family: what the trainer calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.config.unified import UnifiedSettings
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.models.bagel import convert, sizes
from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.bagel.model import BagelModel, JointLoss
from bettersynth.models.bagel.packing import NO_DROPOUT, Dropout
from bettersynth.models.bagel.processor import UnifiedProcessor, blank_batch
from bettersynth.models.bagel.records import RecordEncoder
from bettersynth.models.bagel.resize import ResizeRule
from bettersynth.models.bagel.tokens import BagelTokenizer
from bettersynth.models.family import BaseFolders, Batch, LoraSites, LossOutput, Processor, ShardUnits
from bettersynth.models.joint import JointOutput, LossPart
from bettersynth.models.layers.mot import GEN
from bettersynth.models.stream import write_stream

_LORA_PATTERN = (
    r"language_model\.model\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj(_moe_gen)?|mlp(_moe_gen)?\.(gate|up|down)_proj)"
)
_LORA_FULL = ("connector", "time_embedder", "vae2llm", "llm2vae")
_SMALL_FILES_BYTES = 16 * 2**20
"""Configurations and tokenizer."""


class BagelFamily:
    """See :class:`bettersynth.models.family.ModelFamily`. There is one kind of checkpoint: the official folder."""

    name = "bagel"

    def load_base(self, spec: BaseFolders, *, dtype: torch.dtype | None, seed: int) -> nn.Module:
        """Refused: BAGEL is not put together from three bases."""
        raise self._refusal()

    def load_checkpoint(self, folder: Path, *, dtype: torch.dtype | None, model_zoo: Path | None = None) -> BagelModel:
        """The official folder."""
        return convert.load_checkpoint(folder, dtype=dtype)

    def load_adapter(self, model: nn.Module, path: Path) -> list[str]:
        """Refused: there is no first stage whose result could be loaded."""
        raise self._refusal()

    def processor(
        self, model_or_folder: nn.Module | Path, *, image_aspect_ratio: str, max_length: int, image_root: Path
    ) -> Processor:
        """Refused: BAGEL's records are packed, not padded; see :meth:`training_processor`."""
        raise self._refusal()

    def training_processor(self, model: nn.Module, config: StageConfig) -> UnifiedProcessor:
        """The processor of a stage. The model takes over what the settings say of its forward pass.

        Raises:
            ConfigError: the stage has no ``unified`` section.
        """
        bagel, settings = unwrap(model), config.unified or UnifiedSettings()
        bagel.attention = settings.attention
        if settings.timestep_shift is not None:
            bagel.config = replace(bagel.config, timestep_shift=settings.timestep_shift)
        vae_rule, vit_rule = training_rules(bagel.config, settings)
        encoder = RecordEncoder(
            bagel.config,
            BagelTokenizer(Path(bagel.tokenizer_folder or ".")),
            config.images,
            vae_rule,
            vit_rule,
            config.max_length,
            settings.learn_next_kind,
        )
        return UnifiedProcessor(
            encoder,
            bagel.autoencoder if bagel._autoencoder else None,
            config.seed,
            Dropout(settings.dropout_text, settings.dropout_vit, settings.dropout_vae),
            settings.sample_posterior,
            settings.text_loss_reweighting,
        )

    def without_noise(self, processor: UnifiedProcessor) -> UnifiedProcessor:
        """The processor that leaves nothing out and takes the mean of a picture's latents."""
        return replace(processor, dropout=NO_DROPOUT, sample_posterior=False)

    def freeze(self, model: nn.Module, parts: Sequence[str]) -> set[str]:
        """Exclude parts from training; returns the names of their parameters.

        ``und`` also stops gradients at understanding tokens. See :data:`FREEZABLE`.
        """
        bagel = unwrap(model)
        bagel.is_und_frozen = "und" in parts
        frozen = set()
        for name, parameter in bagel.named_parameters():
            if any(FREEZABLE[part](name) for part in parts):
                parameter.requires_grad_(False)
                frozen.add(name)
        return frozen

    def of_sizes(self, preset: str) -> BagelModel:
        """A model of a preset's sizes without memory for its weights."""
        return sizes.build_empty(sizes.preset_config(preset))

    def image_tokens(self, model: nn.Module) -> int:
        """Tokens of the pictures of :meth:`example_batch`: one seen and one drawn, as large as they can be."""
        return sizes.image_tokens(unwrap(model).config)

    def example_batch(self, model: nn.Module, num_samples: int, num_tokens: int, *, is_packed: bool = False) -> Batch:
        """A batch as large as one of samples of ``num_tokens`` tokens, half of whose text is learnt."""
        config = unwrap(model).config
        return blank_batch(config, [sizes.example_sample(config, num_tokens)] * num_samples)

    def training_flops(self, model: nn.Module, num_tokens: float, squared_lengths: float) -> float:
        """Arithmetic of a forward and backward pass, as model FLOP utilisation counts it.

        6 x (parameters that a token passes, both embedding matrices included) x tokens + 12 x head width x heads x
        layers x sum of the squared sample lengths. Recomputation, vision encoder and autoencoder do not count.
        """
        llm = unwrap(model).config.llm
        width, kv = llm.hidden_size, llm.num_key_value_heads * llm.head_dim
        layer = 2 * width * (width + kv) + 3 * width * llm.intermediate_size
        numbers = llm.num_hidden_layers * layer + 2 * llm.vocab_size * width
        heads = llm.head_dim * llm.num_attention_heads * llm.num_hidden_layers
        return 6.0 * numbers * num_tokens + 12.0 * heads * squared_lengths

    def beside_weights_bytes(self, model: nn.Module) -> int:
        """What a saved folder holds besides the weights: autoencoder, tables of positions, small files."""
        bagel = unwrap(model)
        frozen = bagel.autoencoder.parameters() if bagel._autoencoder else ()
        return sum(4 * part.numel() for part in (*frozen, *bagel.buffers())) + _SMALL_FILES_BYTES

    def lora_sites(self, model: nn.Module) -> LoraSites:
        """Low-rank weights in both halves of the decoder; connector, time embedder and latent projections in full."""
        return LoraSites(_LORA_PATTERN, _LORA_FULL, str(unwrap(model).tokenizer_folder or ""))

    def compile(self, model: nn.Module) -> None:
        """Compile each decoder layer in place; names of parameters stay as they are."""
        for layer in unwrap(model).decoder.layers:
            layer.compile(dynamic=True)

    def save_weights(self, model: nn.Module, folder: Path, *, dtype: torch.dtype, name: str) -> None:
        """One more weight file beside a saved folder: ``model.safetensors``, or a state dict called ``*.pt``."""
        state = unwrap(model).state_dict()
        if name.endswith(".pt"):
            torch.save({key: tensor.to(dtype) for key, tensor in state.items()}, folder / name)
        else:
            write_stream(folder / name, state, dtype=dtype)

    def losses(self, model: nn.Module, batch: Batch) -> JointLoss:
        """Both losses of a packed batch. Calls the module, so that wrappers around it work."""
        output: JointLoss = model(batch)
        return output

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Both parts with their own denominators; as one number, the sum of both means (times the targets)."""
        joint = self.losses(model, batch)
        total = joint.total()
        latents = torch.tensor(float(len(joint.mse)), device=total.device)
        parts = (
            LossPart("text", (joint.ce * joint.ce_weights).sum(), joint.ce_weights.sum()),
            LossPart("image", joint.mse_per_token.sum(), latents),
        )
        num_targets = torch.tensor(len(joint.ce) + len(joint.mse), device=total.device)
        return JointOutput(total * num_targets, num_targets, parts=parts)

    def trainable(self, model: nn.Module, stage: int) -> list[tuple[str, nn.Parameter]]:
        """Everything but the autoencoder, in every stage; freeze parts by ``requires_grad_`` beforehand."""
        return [(name, parameter) for name, parameter in unwrap(model).named_parameters() if parameter.requires_grad]

    def shard_units(self, model: nn.Module) -> ShardUnits:
        """Layers of the vision encoder and of the decoder; the autoencoder is not split."""
        bagel = unwrap(model)
        bagel.is_uniform = True
        vit = bagel.vit_model["vision_model"].encoder["layers"]
        return ShardUnits((*vit, *bagel.decoder.layers), tuple(bagel._autoencoder))

    def enable_gradient_checkpointing(self, model: nn.Module, layers: int | None = None) -> None:
        """Trade time for memory in the decoder: in all layers, or in the first so many."""
        unwrap(model).decoder.is_checkpointing = True if layers is None else layers

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """Refused, as there is no first stage."""
        raise self._refusal()

    def save_checkpoint(self, model: nn.Module, folder: Path, *, dtype: torch.dtype) -> None:
        """The official folder."""
        convert.save_checkpoint(unwrap(model), folder, dtype=dtype)

    def _refusal(self) -> ConfigError:
        return ConfigError(
            t("BAGEL is trained from one whole folder, in one stage"),
            expected=t("a folder with llm_config.json, vit_config.json, ema.safetensors and ae.safetensors"),
        )


def _is_generation(name: str) -> bool:
    return GEN in name or name.startswith(("vae2llm.", "llm2vae.", "time_embedder."))


FREEZABLE: dict[str, Callable[[str], bool]] = {
    "llm": lambda name: name.startswith("language_model."),
    "und": lambda name: not _is_generation(name),
    "gen": _is_generation,
    "embeddings": lambda name: name.endswith(("embed_tokens.weight", "lm_head.weight")),
    "vit": lambda name: name.startswith("vit_model."),
    "connector": lambda name: name.startswith("connector."),
    "time_embedder": lambda name: name.startswith("time_embedder."),
    "vae": lambda name: False,  # no part of the model's parameters: it is always frozen
}
"""Which parameters each freezable part holds. ``und`` takes the output head too, which the original leaves out."""


def training_rules(config: BagelConfig, settings: UnifiedSettings) -> tuple[ResizeRule, ResizeRule]:
    """How pictures are resized for latents and for the ViT: as asked for, else as wide as the position tables allow."""
    stride, patch = config.latent_stride_px, config.vit.patch_size
    side, places = config.max_latent_size, config.vit_max_num_patch_per_side
    vae = settings.vae_image_size or (side * stride, max(1, side // 2) * stride)
    vit = settings.vit_image_size or (places * patch, max(1, places * 16 // 70) * patch)
    return ResizeRule(*vae, stride, settings.max_pixels), ResizeRule(*vit, patch, settings.max_pixels)


def unwrap(model: nn.Module) -> BagelModel:
    """The model inside of a data-parallel wrapper.

    Raises:
        ConfigError: it is another family's.
    """
    inner = getattr(model, "module", model)
    if not isinstance(inner, BagelModel):
        raise ConfigError(t("not a BAGEL model"), got=type(inner).__name__)
    return inner


FAMILY = BagelFamily()
