"""The MGM family: what the trainer calls."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bettersynth.core.errors import ConfigError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.models.family import (
    IGNORE_LABEL,
    IMAGE_MARKER,
    BaseFolders,
    Batch,
    Example,
    LoraSites,
    LossOutput,
    Processor,
    ShardUnits,
)
from bettersynth.models.mgm import convert, load
from bettersynth.models.mgm.collate import collate, pack
from bettersynth.models.mgm.config import CONFIG_FILE, MgmConfig
from bettersynth.models.mgm.model import CONNECTOR, TOWERS, EmbeddingHook, MgmModel
from bettersynth.models.mgm.processor import MgmProcessor, build_processor
from bettersynth.models.weights import read_json

_LOG = logging.getLogger(__name__)
STAGES = (1, 2)
_LORA_PATTERN = r"model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj"
"""All linear layers of the language model; the vision towers have layers of the same short names."""


class MgmFamily:
    """See :class:`bettersynth.models.family.ModelFamily`."""

    name = "mgm"

    def load_base(self, spec: BaseFolders, *, dtype: torch.dtype | None, seed: int) -> MgmModel:
        """Base models plus a fresh projector and miner."""
        return load.load_base(spec, dtype=dtype, seed=seed)

    def load_checkpoint(self, folder: Path, *, dtype: torch.dtype | None, model_zoo: Path | None = None) -> MgmModel:
        """A full checkpoint."""
        return load.load_checkpoint(folder, dtype=dtype, model_zoo=model_zoo)

    def load_adapter(self, model: nn.Module, path: Path) -> list[str]:
        """Load stage 1's result; parts the file lacks are logged, anything that does not fit is an error."""
        adapter = convert.read_adapter(path)
        loaded = convert.apply_adapter(_mgm(model), adapter, path)
        if adapter.absent:
            _LOG.warning(t("{path} lacks {names}; they keep their fresh values", path=path, names=list(adapter.absent)))
        if adapter.ignored:
            _LOG.info("%s: %d tower tensors ignored, the base models' are used", path, len(adapter.ignored))
        return loaded

    def processor(
        self, model_or_folder: nn.Module | Path, *, image_aspect_ratio: str, max_length: int, image_root: Path
    ) -> MgmProcessor:
        """The processor of a model or of a checkpoint folder.

        A model remembers how its pictures were last prepared and how long its sequences may be: the ``config.json``
        saved with it must tell the evaluation, whatever the checkpoint it started from said.
        """
        if isinstance(model_or_folder, Path):
            config, tokenizer = checkpoint_config(model_or_folder), model_or_folder
        else:
            model = _mgm(model_or_folder)
            model.config = model.config.with_fields(
                image_aspect_ratio=image_aspect_ratio, tokenizer_model_max_length=max_length
            )
            config, tokenizer = model.config, Path(model.tokenizer_folder or ".")
        return build_processor(
            config, tokenizer, image_aspect_ratio=image_aspect_ratio, max_length=max_length, image_root=image_root
        )

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Summed loss at the targets. Calls the module, so that wrappers around it work."""
        output: LossOutput = model(batch)
        return output

    def detailed_loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """:meth:`loss` with its parts, target by target."""
        output: LossOutput = model(batch, is_detailed=True)
        return output

    def head(self, model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """(T, D) states -> (T, vocabulary) float32 logits."""
        return _mgm(model).logits(hidden)

    @contextmanager
    def with_embeddings(self, model: nn.Module, hook: EmbeddingHook) -> Iterator[None]:
        """Let ``hook`` change the embeddings of every batch inside; hooks nest, the innermost comes first."""
        mgm = _mgm(model)
        outer = mgm.embedding_hook
        mgm.embedding_hook = hook if outer is None else lambda embeds, is_text: outer(hook(embeds, is_text), is_text)
        try:
            yield
        finally:
            mgm.embedding_hook = outer

    def swap_images(self, batch: Batch, source: torch.Tensor) -> Batch:
        """The batch with picture number ``source[i]`` in place of picture ``i``."""
        names = [name for name in batch if name.startswith("tower_")] or ["images"]
        return {**batch, **{name: batch[name].index_select(0, source) for name in names}}

    def trainable(self, model: nn.Module, stage: int) -> list[tuple[str, nn.Parameter]]:
        """Stage 1: projector and miner. Stage 2: these and the language model. Towers stay frozen.

        Raises:
            ConfigError: no such stage, or a config that asks to train a tower.
        """
        mgm = _mgm(model)
        if stage not in STAGES:
            raise ConfigError(t("no such training stage"), got=stage, expected=t("one of: {names}", names="1, 2"))
        for key in ("optimize_vision_tower", "optimize_vision_tower_aux"):
            if mgm.config.get(key):
                raise ConfigError(t("training a vision tower is not supported"), where=key, got="true")
        towers = tuple(f"model.{name}." for name in TOWERS)
        connector = {name for name, _ in mgm.connector_parameters()}
        chosen = []
        for name, parameter in mgm.named_parameters():
            is_trained = name in connector or (stage == 2 and not name.startswith(towers))
            parameter.requires_grad_(is_trained)
            if is_trained:
                chosen.append((name, parameter))
        return chosen

    def lora_sites(self, model: nn.Module) -> LoraSites:
        """Low-rank weights in the language model, projector and miner in full."""
        return LoraSites(_LORA_PATTERN, CONNECTOR, str(_mgm(model).config.get("_name_or_path") or ""))

    def set_stochastic_depth(self, model: nn.Module, rate: float) -> None:
        """Let training leave out blocks of the frozen high-resolution tower, as the original does."""
        _mgm(model).model.vision_tower_aux.set_stochastic_depth(rate)

    def set_activation(self, model: nn.Module, name: str) -> None:
        """Choose the form of Gemma's GELU; saved checkpoints say it."""
        _mgm(model).set_activation(name)

    def shard_units(self, model: nn.Module) -> ShardUnits:
        """Gemma's layers; the frozen towers are not split, as batches of texts do not run them."""
        mgm = _mgm(model)
        return ShardUnits(tuple(mgm.model.layers), tuple(mgm.model.get_submodule(name) for name in TOWERS))

    def enable_gradient_checkpointing(self, model: nn.Module, num_layers: int | None = None) -> None:
        """Trade time for memory in the language model: in all its layers, or in its first ``num_layers``."""
        _mgm(model).gradient_checkpointing_enable(num_layers)

    def enable_packing(self, model: nn.Module, processor: Processor) -> Processor:
        """Compute no padding: the processor that packs a micro-batch into one row, for a model that then takes it."""
        assert isinstance(processor, MgmProcessor)
        _mgm(model).enable_packing()
        return replace(processor, is_packed=True)

    def of_sizes(self, preset: str) -> MgmModel:
        """A model of a preset's sizes without memory for its weights."""
        return load.build_empty(load.preset_config(preset))

    def image_tokens(self, model: nn.Module) -> int:
        """Positions that a picture takes."""
        return _mgm(model).config.tokens_per_image

    def example_batch(self, model: nn.Module, num_samples: int, num_tokens: int, *, is_packed: bool = False) -> Batch:
        """A batch as large as one of samples with a picture and ``num_tokens`` tokens, half of whose text is learnt."""
        config = _mgm(model).config
        text = num_tokens - config.tokens_per_image
        labels = [IGNORE_LABEL] * (text - text // 2 + 1) + [0] * (text // 2)
        example = Example("", [IMAGE_MARKER, *([0] * text)], labels, (), num_tokens)
        picture = np.zeros((config.image_size_aux, config.image_size_aux, 3), dtype=np.uint8)
        if is_packed:
            _mgm(model).enable_packing()
        join = pack if is_packed else collate
        examples, pixels = [example] * num_samples, [[picture]] * num_samples
        return join(examples, pixels, tokens_per_image=config.tokens_per_image)

    def tower_features(self, model: nn.Module, pixels: torch.Tensor) -> Batch:
        """What the frozen towers make of pictures (I, H, W, 3): tensors with one row per picture, which :meth:`loss`
        takes as part of a batch in place of ``images``."""
        return _mgm(model).features_of(pixels)

    def tower_digest(self, model: nn.Module) -> str:
        """Digest of everything in the model that decides :meth:`tower_features`."""
        mgm = _mgm(model)
        state = hashlib.blake2b(digest_size=16)
        for name in TOWERS:
            for key, tensor in sorted(mgm.model.get_submodule(name).state_dict().items()):
                state.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                state.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        config = mgm.config
        sizes = [config.vision, config.vision_layers, config.image_size_low, config.image_size_aux, config.num_views]
        views = [config.get("image_grid"), config.get("image_global")]
        return digest_json({"weights": state.hexdigest(), "sizes": sizes, "views": views})

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """Projector and miner as ``mm_projector.safetensors`` and ``.bin``, and the config."""
        convert.save_adapter(_mgm(model), folder)

    def save_checkpoint(self, model: nn.Module, folder: Path, *, dtype: torch.dtype) -> None:
        """A full checkpoint in the original's layout."""
        convert.save_checkpoint(_mgm(model), folder, dtype=dtype)


def _mgm(model: nn.Module) -> MgmModel:
    inner = getattr(model, "module", model)  # data-parallel wrappers keep the model there
    if not isinstance(inner, MgmModel):
        raise ConfigError(t("not an MGM model"), got=type(inner).__name__)
    return inner


def checkpoint_config(folder: Path, *, model_zoo: Path | None = None) -> MgmConfig:
    """The config of a checkpoint folder; where it does not describe its towers, they are read, see load_checkpoint."""
    fields = read_json(folder / CONFIG_FILE)
    vision, aux = fields.get("mm_vision_config"), fields.get("mm_vision_aux_config")
    if vision is None or aux is None:
        return load.load_checkpoint(folder, dtype=torch.float32, model_zoo=model_zoo).config
    return MgmConfig(fields, vision, tuple(aux["depths"]), tuple(aux["dims"]), str(folder / CONFIG_FILE)).check()


FAMILY = MgmFamily()
