"""Build MGM models: from three base folders, from a full checkpoint, or from the sizes of a preset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRotaryEmbedding

from bettersynth.config.load import load_yaml
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.core.seed import derive_seed
from bettersynth.models.family import BaseFolders
from bettersynth.models.mgm.config import CONFIG_FILE, MgmConfig, clip_vision_fields, config_from_bases
from bettersynth.models.mgm.convert import (
    CLIP_PREFIX,
    TRUNK_PREFIX,
    clip_tensors,
    llm_tensors,
    split_checkpoint,
)
from bettersynth.models.mgm.model import CONNECTOR, MINER_HEADS, MgmModel, build_miner_head, build_projector
from bettersynth.models.mgm.vision import load_convnext_trunk, trunk_shape
from bettersynth.models.weights import Tensors, read_json

PRESETS = Path(__file__).parent.parent / "presets"


def load_base(spec: BaseFolders, *, dtype: torch.dtype | None, seed: int, attention: str = "sdpa") -> MgmModel:
    """The start of stage 1: Gemma and both towers from their folders, projector and miner fresh from ``seed``."""
    trunk = load_convnext_trunk(spec.vision_tower_aux)
    config = config_from_bases(spec, list(trunk.depths), list(trunk.dims))
    tensors = {
        **llm_tensors(spec.llm),
        **clip_tensors(spec.vision_tower),
        **{TRUNK_PREFIX + name: tensor for name, tensor in trunk.state_dict().items()},
        **fresh_connector(config, seed),
    }
    model = build(config, tensors, dtype=dtype, attention=attention, where=spec.llm)
    model.tokenizer_folder = str(spec.llm)
    return model


def load_checkpoint(
    folder: Path, *, dtype: torch.dtype | None, model_zoo: Path | None = None, attention: str = "sdpa"
) -> MgmModel:
    """A full checkpoint. Towers come from its own weights if stored there, else from the folders its config names.

    Args:
        folder: config, weights (shards or one file, ``.safetensors`` or ``.bin``), tokenizer.
        dtype: of the parameters; see :func:`build`.
        model_zoo: where to look for tower folders first.
        attention: ``sdpa`` or ``eager``.
    """
    fields = read_json(folder / CONFIG_FILE)
    tensors, towers = split_checkpoint(folder)
    vision = fields.get("mm_vision_config")
    clip, trunk = dict(towers[CLIP_PREFIX]), dict(towers[TRUNK_PREFIX])
    if not clip or vision is None:
        tower = find_tower(fields, "mm_vision_tower", folder, model_zoo)
        vision = vision or clip_vision_fields(tower)
        clip = clip or clip_tensors(tower)
    if not trunk:
        loaded = load_convnext_trunk(find_tower(fields, "mm_vision_tower_aux", folder, model_zoo))
        trunk = {TRUNK_PREFIX + name: tensor for name, tensor in loaded.state_dict().items()}
    depths, dims = trunk_shape({name.removeprefix(TRUNK_PREFIX): v for name, v in trunk.items()}, folder)
    config = MgmConfig(fields, vision, tuple(depths), tuple(dims), str(folder / CONFIG_FILE)).check()
    model = build(config, {**tensors, **clip, **trunk}, dtype=dtype, attention=attention, where=folder)
    model.tokenizer_folder = str(folder)
    return model


def find_tower(fields: dict[str, Any], key: str, folder: Path, model_zoo: Path | None) -> Path:
    """The folder of a tower: under ``model_zoo``, as written, or beside one of the checkpoint's parent folders.

    Raises:
        DataError: not found; every place that was tried is listed.
    """
    name = fields.get(key)
    if not isinstance(name, str) or not name:
        raise DataError(t("the config does not name this tower"), where=str(folder / CONFIG_FILE), expected=key)
    tried = list(dict.fromkeys(_tower_places(Path(name), folder, model_zoo)))
    for place in tried:
        if place.is_dir():
            return place
    raise DataError(
        t("tower folder not found"),
        where=f"{folder / CONFIG_FILE} {key}",
        got=name,
        expected=t("one of: {names}", names=", ".join(map(str, tried))),
        hint=t("give the folder that holds the base models as model_zoo"),
    )


def _tower_places(name: Path, folder: Path, model_zoo: Path | None) -> Iterator[Path]:
    if model_zoo is not None:
        if not name.is_absolute():
            yield model_zoo.parent / name
            yield model_zoo / name
        yield model_zoo / Path(*name.parts[-2:])
        yield model_zoo / name.name
    yield name
    if not name.is_absolute():
        for parent in (folder.resolve(), *folder.resolve().parents):
            yield parent / name


def fresh_connector(config: MgmConfig, seed: int) -> Tensors:
    """Projector and miner as PyTorch initialises them, drawn from ``seed`` alone (not the global generator)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "mgm connector"))
        parts: dict[str, nn.Module] = {"mm_projector": build_projector(config)}
        parts |= {name: build_miner_head(config, name) for name in MINER_HEADS}
    return {f"model.{part}.{name}": tensor for part in CONNECTOR for name, tensor in parts[part].state_dict().items()}


def build(
    config: MgmConfig, tensors: Tensors, *, dtype: torch.dtype | None, attention: str = "sdpa", where: object = ""
) -> MgmModel:
    """A model that holds exactly these tensors. Nothing is initialised first, so it costs no time and no second copy.

    Args:
        config: sizes.
        tensors: all of them, by name.
        dtype: of the parameters. None: they are the given tensors themselves, but for what stage 1 trains, which is
            float32.
        attention: ``sdpa`` or ``eager``.
        where: the files, for messages.

    Raises:
        DataError: tensors are missing, unexpected, or of other shapes.
    """
    model = build_empty(config, attention=attention)
    own = model.state_dict()
    problems = [t("missing: {names}", names=name) for name in own if name not in tensors]
    for name, tensor in tensors.items():
        if name not in own:
            problems.append(t("unexpected: {names}", names=name))
        elif tensor.shape != own[name].shape:
            problems.append(f"{name}: {tuple(tensor.shape)} != {tuple(own[name].shape)}")
    if problems:
        raise DataError(
            t("the weights do not fit the config ({n} tensors)", n=len(problems)),
            where=str(where),
            got="; ".join(problems[:5]),
        )
    model.load_state_dict({n: _held(n, v, dtype) for n, v in tensors.items()}, strict=True, assign=True)
    fill_buffers(model)
    return model.eval()


def _held(name: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    if dtype is None and name.split(".")[1] not in CONNECTOR:
        return tensor
    # A copy even where nothing is converted: parameters must not share memory with a mapped file.
    return tensor.to(dtype or torch.float32, copy=True)


def build_empty(config: MgmConfig, *, attention: str = "sdpa") -> MgmModel:
    """The model without memory for its tensors (meta device); shapes and names can be counted."""
    with torch.device("meta"):
        return MgmModel(config, attention=attention)


def fill_buffers(model: MgmModel) -> None:
    """Give the few computed buffers their values; they stay float32 whatever the dtype of the weights."""
    text = model.model
    text.rotary_emb = GemmaRotaryEmbedding(text.config)
    text.embed_tokens.embed_scale = torch.tensor(text.embed_tokens.scalar_embed_scale)
    embeddings = text.vision_tower.vision_tower["vision_model"].embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions).unsqueeze(0)


def preset_names() -> list[str]:
    """The MGM presets there are, by file name."""
    return sorted(path.stem for path in PRESETS.glob("mgm_*.yaml"))


def preset_config(name: str) -> MgmConfig:
    """The sizes of a preset (``models/presets/NAME.yaml``).

    Raises:
        ConfigError: no such preset.
    """
    path = PRESETS / f"{name}.yaml"
    if name not in preset_names():
        raise ConfigError(
            t("unknown model preset '{name}'", name=name),
            expected=t("one of: {names}", names=", ".join(preset_names())),
            hint=did_you_mean(name, preset_names()),
        )
    data = load_yaml(path).data
    aux = data["vision_aux"]
    fields = {**data["text"], **data["image"], "model_type": "mgm_gemma"}
    return MgmConfig(fields, data["vision"], tuple(aux["depths"]), tuple(aux["dims"]), str(path)).check()
