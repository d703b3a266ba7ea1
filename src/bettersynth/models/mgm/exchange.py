"""Checkpoints from one public form to another: self-contained safetensors, the original MGM layout, projector files.

Everything goes through a loaded model, so what cannot be loaded is never half converted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.models.family import BaseFolders
from bettersynth.models.mgm import convert, load
from bettersynth.models.mgm.config import CONFIG_FILE
from bettersynth.models.mgm.model import TOWERS, MgmModel
from bettersynth.models.weights import Tensors, load_folder, read_json, save_pickle, save_tensors, write_json

CODE_FILE = "modeling_bettersynth.py"
OWN_FIELDS = ("mm_vision_config", "mm_vision_aux_config")
"""What our ``config.json`` says beyond the original's: the sizes of both towers."""
_KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CODE = '''"""This checkpoint for transformers with trust_remote_code=True; needs: pip install 'bettersynth[train]'."""

from bettersynth.models.mgm.auto_config import MgmGemmaConfig  # noqa: F401
from bettersynth.models.mgm.auto_model import MgmGemmaForCausalLM  # noqa: F401
from bettersynth.models.mgm.auto_processor import MgmGemmaProcessor  # noqa: F401
'''
AUTO_MAP = {
    "AutoConfig": "modeling_bettersynth.MgmGemmaConfig",
    "AutoModelForCausalLM": "modeling_bettersynth.MgmGemmaForCausalLM",
    "AutoProcessor": "modeling_bettersynth.MgmGemmaProcessor",
}


def read_model(folder: Path, *, dtype: str = "auto", model_zoo: Path | None = None) -> tuple[MgmModel, torch.dtype]:
    """A full checkpoint in its stored precision, or another.

    Raises:
        ConfigError: unknown precision. DataError: no full checkpoint, or towers that are nowhere.
    """
    fields = read_json(folder / CONFIG_FILE)
    kind = _kind(str(fields.get("torch_dtype") or fields.get("dtype") or "float32") if dtype == "auto" else dtype)
    return load.load_checkpoint(folder, dtype=kind, model_zoo=model_zoo), kind


def _kind(name: str) -> torch.dtype:
    if name not in _KINDS:
        raise ConfigError(t("unsupported value"), where="dtype", got=name, expected=", ".join(_KINDS))
    return _KINDS[name]


def write_standalone(
    folder: Path, out: Path, *, dtype: str = "auto", model_zoo: Path | None = None, has_code: bool = True
) -> dict[str, Any]:
    """A folder that needs nothing else: towers inside, safetensors, tokenizer, and a file for transformers.

    Args:
        has_code: add ``modeling_bettersynth.py`` and name it in the config, for users who do not import bettersynth.

    Returns:
        ``parameters``, ``dtype`` and ``bytes`` of what was written.
    """
    _refuse_same(folder, out)
    model, kind = read_model(folder, dtype=dtype, model_zoo=model_zoo)
    convert.save_checkpoint(model, out, dtype=kind)
    if has_code:
        write_atomic(out / CODE_FILE, _CODE.encode())
        write_json({**read_json(out / CONFIG_FILE), "auto_map": AUTO_MAP}, out / CONFIG_FILE)
    return _facts(model, kind)


def write_original(folder: Path, out: Path, *, dtype: str = "auto", model_zoo: Path | None = None) -> dict[str, Any]:
    """The original trainer's stage-2 layout: shards with an index, and a config without fields of ours.

    The original rebuilds both towers from the folders its config names; their tensors are stored all the same.
    """
    _refuse_same(folder, out)
    model, kind = read_model(folder, dtype=dtype, model_zoo=model_zoo)
    convert.save_checkpoint(model, out, dtype=kind)
    fields = read_json(out / CONFIG_FILE)
    write_json({key: value for key, value in fields.items() if key not in OWN_FIELDS}, out / CONFIG_FILE)
    return _facts(model, kind)


def write_projector(folder: Path, file: Path, *, form: str = "mgm", has_towers: bool = False) -> list[str]:
    """The connector of a checkpoint, or of stage 1's result, as one file.

    Args:
        folder: full checkpoint, stage-1 folder, or an adapter file.
        file: ``.bin`` (a pickle of tensors, as the original and LLaVA read it) or ``.safetensors``.
        form: ``mgm``: projector and miner; ``llava``: the projector alone, ``model.mm_projector.*``.
        has_towers: put both frozen towers into it, as the original's ``mm_projector.bin`` does.

    Returns:
        The tensors' names.
    """
    if form not in ("mgm", "llava") or file.suffix not in (".bin", ".safetensors"):
        raise ConfigError(
            t("unsupported value"), got=f"{form}, {file.name}", expected="mgm | llava; .bin | .safetensors"
        )
    tensors = _stored(folder)
    prefixes = ["model.mm_projector."] if form == "llava" else [f"model.{part}." for part in convert.CONNECTOR]
    if has_towers:
        prefixes += [f"model.{tower}." for tower in TOWERS]
    chosen = {name: tensor for name, tensor in tensors.items() if name.startswith(tuple(prefixes))}
    missing = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in chosen)]
    if missing:
        raise DataError(t("the checkpoint lacks parts"), where=str(folder), got=", ".join(missing))
    (save_pickle if file.suffix == ".bin" else save_tensors)(chosen, file)
    return sorted(chosen)


def _stored(folder: Path) -> Tensors:
    if folder.is_file() or any((folder / name).is_file() for name in convert.ADAPTER_FILES):
        return convert.read_adapter(folder).tensors
    return load_folder(folder)


def join(adapter: Path, bases: BaseFolders, out: Path, *, dtype: str = "float32", seed: int = 0) -> list[str]:
    """Base models and a projector file (ours, the original's or LLaVA's) as one full checkpoint.

    Parts that the file lacks, such as the miner in a LLaVA file, keep fresh values drawn from ``seed``; a fresh miner
    ends in a linear layer of small random values, so it disturbs the low-resolution tokens a little.

    Returns:
        The names of the parts that are fresh.
    """
    kind = _kind(dtype)
    model = load.load_base(bases, dtype=kind, seed=seed)
    found = convert.read_adapter(adapter)
    convert.apply_adapter(model, found, adapter)
    convert.save_checkpoint(model, out, dtype=kind)
    return list(found.absent)


def _refuse_same(folder: Path, out: Path) -> None:
    if folder.resolve() == out.resolve():
        raise ConfigError(t("input and output are the same folder"), where=str(out))


def _facts(model: MgmModel, kind: torch.dtype) -> dict[str, Any]:
    count = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": count, "dtype": str(kind).removeprefix("torch."), "bytes": count * kind.itemsize}
