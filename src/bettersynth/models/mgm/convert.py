"""Tensor names of public files, and reading and writing MGM weights in the public layouts.

Inside, every parameter already has its public name (``model.layers.0...``, ``model.vision_tower...``), so that a full
checkpoint needs no renaming. Base models and adapters do.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.mgm.config import CONFIG_FILE
from bettersynth.models.mgm.model import CONNECTOR, MgmModel
from bettersynth.models.mgm.processor import TOKENIZER_FILES
from bettersynth.models.weights import (
    DEFAULT_SHARD_BYTES,
    Tensors,
    find_weights,
    load_folder,
    load_tensors,
    save_pickle,
    save_sharded,
    save_tensors,
    write_json,
)

CLIP_PREFIX = "model.vision_tower.vision_tower.vision_model."
TRUNK_PREFIX = "model.vision_tower_aux."
ADAPTER_SAFE, ADAPTER_PICKLE = "mm_projector.safetensors", "mm_projector.bin"
ADAPTER_FILES = (ADAPTER_SAFE, ADAPTER_PICKLE)
GENERATION_FILE = "generation_config.json"
_CLIP_PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")
_HARMLESS_ENDINGS = ("embeddings.position_ids", "rotary_emb.inv_freq")
"""Buffers that older libraries stored and that are recomputed."""


def is_harmless(name: str) -> bool:
    """Whether a stored tensor may be ignored: recomputed buffers, and the output head, tied to the embedding."""
    return name.endswith(_HARMLESS_ENDINGS) or name == "lm_head.weight"


def llm_tensors(folder: Path) -> Tensors:
    """A Gemma folder's tensors under our names, from shards or one file, ``.safetensors`` or ``.bin``."""
    found = load_folder(folder)
    return {name: tensor for name, tensor in found.items() if not is_harmless(name)}


def clip_tensors(folder: Path) -> Tensors:
    """The vision tower of a CLIP folder, of the tower alone or the whole of CLIP, with or without ``vision_model.``."""
    renamed: Tensors = {}
    for name, tensor in load_folder(folder).items():
        short = name.removeprefix("vision_model.")
        if short.startswith(_CLIP_PARTS) and not is_harmless(short):
            renamed[CLIP_PREFIX + short] = tensor
    if not renamed:
        raise DataError(t("no CLIP vision tower in these weights"), where=str(folder))
    return renamed


@dataclass(frozen=True)
class Adapter:
    """What a stage-1 file holds.

    Attributes:
        tensors: connector tensors under our names.
        absent: connector parts the file does not have.
        ignored: tower tensors, which belong to the base models.
    """

    tensors: Tensors
    absent: tuple[str, ...]
    ignored: tuple[str, ...]


def find_adapter(path: Path) -> Path:
    """The adapter file itself, or the one in a folder (safetensors before pickle).

    Raises:
        DataError: nothing there; the message lists what was searched.
    """
    if path.is_file():
        return path
    for name in ADAPTER_FILES:
        if (path / name).is_file():
            return path / name
    raise DataError(
        t("no adapter found"), where=str(path), expected=t("one of: {names}", names=", ".join(ADAPTER_FILES))
    )


def read_adapter(path: Path) -> Adapter:
    """Read what stage 1 trained, from our file or the original's ``mm_projector.bin``; prefixes do not matter.

    Raises:
        DataError: the file holds tensors of no known part, or no connector part at all.
    """
    file = find_adapter(path)
    tensors: Tensors = {}
    ignored, unexpected = [], []
    for name, tensor in load_tensors(file).items():
        part, short = _split_name(name)
        if part in CONNECTOR:
            tensors[f"model.{part}.{short}"] = tensor
        elif part:
            ignored.append(name)
        else:
            unexpected.append(name)
    if unexpected or not tensors:
        raise DataError(
            t("not an adapter of this model"),
            where=str(file),
            got=t("unexpected: {names}", names=", ".join(unexpected[:5])) if unexpected else t("no connector tensors"),
            expected=", ".join(CONNECTOR),
        )
    present = {name.split(".")[1] for name in tensors}
    return Adapter(tensors, tuple(part for part in CONNECTOR if part not in present), tuple(ignored))


def _split_name(name: str) -> tuple[str, str]:
    """("mm_projector", "0.weight") for any prefix; ("", name) for names of no known part."""
    pieces = name.split(".")
    for part in (*CONNECTOR, "vision_tower", "vision_tower_aux", "vision_fpn"):
        if part in pieces:
            return part, ".".join(pieces[pieces.index(part) + 1 :])
    return "", name


def apply_adapter(model: MgmModel, adapter: Adapter, where: object) -> list[str]:
    """Copy the adapter's tensors into the model; returns their names.

    Raises:
        DataError: a part is there only in pieces, has unknown tensors, or has other shapes. Nothing is copied then.
    """
    own = dict(model.connector_parameters())
    wanted = {name for name in own if name.split(".")[1] not in adapter.absent}
    problems = [t("missing: {names}", names=name) for name in sorted(wanted - set(adapter.tensors))]
    for name, tensor in adapter.tensors.items():
        if name not in own:
            problems.append(t("unexpected: {names}", names=name))
        elif tensor.shape != own[name].shape:
            problems.append(f"{name}: {tuple(tensor.shape)} != {tuple(own[name].shape)}")
    if problems:
        raise DataError(t("the adapter does not fit the model"), where=str(where), got="; ".join(problems[:5]))
    with torch.no_grad():
        for name, tensor in adapter.tensors.items():
            own[name].copy_(tensor)
    return sorted(adapter.tensors)


def full_state(model: MgmModel) -> Tensors:
    """All stored tensors under public names; the tied output head is not among them."""
    return dict(model.state_dict())


def save_adapter(model: MgmModel, folder: Path, *, include_towers: bool = False) -> None:
    """Write stage 1's result: our safetensors file, the original's ``mm_projector.bin``, and ``config.json`` last.

    Args:
        model: the model.
        folder: made if needed.
        include_towers: also put both frozen towers into ``mm_projector.bin``, as the original does (1 GB for MGM-2B).
    """
    connector = {name: parameter.detach() for name, parameter in model.connector_parameters()}
    save_tensors(connector, folder / ADAPTER_SAFE)
    towers = {n: v for n, v in full_state(model).items() if n.startswith((CLIP_PREFIX, TRUNK_PREFIX))}
    save_pickle({**(towers if include_towers else {}), **connector}, folder / ADAPTER_PICKLE)
    fields = model.config.to_json() | {"tune_mm_mlp_adapter": True, "use_cache": False}
    write_json({**fields, "architectures": ["GemmaForCausalLM"]}, folder / CONFIG_FILE)


def save_checkpoint(
    model: MgmModel, folder: Path, *, dtype: torch.dtype, max_shard_bytes: int = DEFAULT_SHARD_BYTES
) -> None:
    """Write a full checkpoint in the original's layout; the weight index is written last.

    Args:
        model: the model; towers are stored with it, so that the result needs no other folder.
        folder: made if needed.
        dtype: of the stored tensors.
        max_shard_bytes: largest shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = model.config.to_json() | {"tune_mm_mlp_adapter": False, "use_cache": True}
    fields |= {"architectures": ["MGMGemmaForCausalLM"], "torch_dtype": str(dtype).removeprefix("torch.")}
    write_json(fields, folder / CONFIG_FILE)
    generation = {key: fields[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in fields}
    write_json({"_from_model_config": True, **generation}, folder / GENERATION_FILE)
    if model.tokenizer_folder is not None:
        copy_tokenizer(Path(model.tokenizer_folder), folder)
    for stale in folder.glob("model-*-of-*.safetensors"):
        stale.unlink()  # an older save with another number of shards must not stay beside the new index
    save_sharded(full_state(model), folder, dtype, max_shard_bytes)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files byte for byte."""
    if source.resolve() == target.resolve():
        return
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def split_checkpoint(folder: Path) -> tuple[Tensors, Mapping[str, Tensors]]:
    """A checkpoint's tensors: language model and connector together, and each tower (empty when not stored).

    Raises:
        DataError: no weights; a folder that holds only stage 1's result is named as such.
    """
    if any((folder / name).is_file() for name in ADAPTER_FILES) and not _has_weights(folder):
        raise DataError(
            t("this folder holds only what stage 1 trained, not a full checkpoint"),
            where=str(folder),
            hint=t("load the base models and this folder as their adapter"),
        )
    rest: Tensors = {}
    towers: dict[str, Tensors] = {CLIP_PREFIX: {}, TRUNK_PREFIX: {}}
    for name, tensor in load_folder(folder).items():
        if is_harmless(name):
            continue
        prefix = next((prefix for prefix in towers if name.startswith(prefix)), None)
        (towers[prefix] if prefix else rest)[name] = tensor
    return rest, towers


def _has_weights(folder: Path) -> bool:
    try:
        return bool(find_weights(folder))
    except DataError:
        return False
