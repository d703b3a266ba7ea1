"""Weight files on disk: find, read and write tensors, safely.

Pickles are read with ``weights_only`` so that a file can never run code; safetensors is what we write ourselves.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

Tensors = dict[str, torch.Tensor]

SAFE_INDEX = "model.safetensors.index.json"
MODEL_FILES = (SAFE_INDEX, "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
"""Files of a Hugging Face folder in the order in which they are looked for."""

DEFAULT_SHARD_BYTES = 5 * 10**9
"""Shard size of the original trainer's checkpoints (decimal gigabytes)."""


def find_weights(folder: Path, names: Sequence[str] = MODEL_FILES) -> list[Path]:
    """The files that hold a folder's weights: the shards of an index, or one single file.

    Args:
        folder: a model folder.
        names: file names to try, best first; names ending in ``.index.json`` are shard indexes.

    Raises:
        DataError: nothing found (the message lists what was searched), or an index names a missing shard.
    """
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        shards = [folder / shard for shard in sorted(set(_read_index(path).values()))]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise DataError(
                t("the index names weight files that are not there"),
                where=str(path),
                got=t("missing: {names}", names=", ".join(missing)),
                hint=t("copy the whole model folder again"),
            )
        return shards
    raise DataError(
        t("no weights found") if folder.is_dir() else t("model folder not found"),
        where=str(folder),
        expected=t("one of: {names}", names=", ".join(names)),
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(t("not a readable weight index"), where=str(path), got=error) from error
    return dict(weight_map)


def load_tensors(path: Path) -> Tensors:
    """All tensors of one ``.safetensors`` file or one torch pickle, on the CPU.

    They are mapped from the file: a page takes memory when it is read, one time for all processes of a machine, and
    the system may drop it again. Only old pickles (before torch 1.6) are read as a whole. A pickle that nests its
    tensors under ``model`` or ``state_dict`` is unwrapped.

    Raises:
        DataError: the file is missing, damaged, holds no tensors, or is a pickle that would run code.
    """
    if not path.is_file():
        raise DataError(t("weight file not found"), where=str(path))
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            hint = t("copy the whole model folder again")
            raise DataError(t("damaged safetensors file"), where=str(path), got=error, hint=hint) from error
    return _unwrap(_load_pickle(path), path)


def _load_pickle(path: Path) -> object:
    try:
        # The old form of a pickle is no zip file and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        message = str(error)
        if "lobal" not in message:  # torch speaks of an unsupported "GLOBAL" or "Unsupported global"
            raise DataError(t("damaged weight file"), where=str(path), got=message.splitlines()[0]) from error
        raise DataError(
            t("this pickle contains code, not only tensors, and was not loaded"),
            where=str(path),
            got=next((line.strip() for line in message.splitlines() if "lobal" in line), ""),
            hint=t("ask its author for a safetensors file; never load a pickle you do not trust"),
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, LookupError, AttributeError) as error:
        raise DataError(
            t("damaged weight file"), where=str(path), got=(str(error).splitlines() or [type(error).__name__])[0]
        ) from error


def _unwrap(loaded: object, path: Path) -> Tensors:
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise DataError(t("the weight file holds no dictionary of tensors"), where=str(path), got=type(loaded).__name__)
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise DataError(t("the weight file holds no dictionary of tensors"), where=str(path))
    return tensors


def load_folder(folder: Path, names: Sequence[str] = MODEL_FILES) -> Tensors:
    """All tensors of a model folder, from shards or a single file."""
    tensors: Tensors = {}
    for path in find_weights(folder, names):
        tensors.update(load_tensors(path))
    return tensors


def check_names(found: Iterable[str], wanted: Iterable[str], where: object) -> None:
    """Raise unless ``found`` holds every wanted tensor name; the message counts and names what is missing."""
    missing = sorted(set(wanted) - set(found))
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            t("{n} tensors are missing", n=len(missing)), where=str(where), got=t("missing: {names}", names=shown)
        )


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write one safetensors file: temporary file, fsync, rename."""
    _write(path, lambda temporary: save_file(_storable(tensors), temporary, metadata={"format": "pt"}))


def save_pickle(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write one torch zip pickle holding a flat dictionary, as the original trainer does."""
    _write(path, lambda temporary: torch.save(_storable(tensors), temporary))


def save_sharded(
    tensors: Mapping[str, torch.Tensor], folder: Path, dtype: torch.dtype, max_bytes: int = DEFAULT_SHARD_BYTES
) -> None:
    """Write ``model-XXXXX-of-XXXXX.safetensors`` and the index, which is written last.

    Tensors become ``dtype`` as their shard is written, so that no more than one shard is copied at a time.
    """
    shards: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * dtype.itemsize
        if shards[-1] and filled + size > max_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors({key: tensor.to(dtype) for key, tensor in shard.items()}, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
    total = sum(tensor.numel() * dtype.itemsize for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(index, folder / SAFE_INDEX)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DataError: missing, unreadable, or not an object.
    """
    if not path.is_file():
        raise DataError(t("file not found"), where=str(path))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(t("not readable JSON"), where=str(path), got=error) from error
    if not isinstance(value, dict):
        raise DataError(t("not a JSON object"), where=str(path), got=type(value).__name__)
    return value


def write_json(value: object, path: Path) -> None:
    """Indented UTF-8 JSON: temporary file, fsync, rename."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _storable(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    # safetensors refuses shared and strided storage; a clone costs one tensor at a time, not the model.
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _write(path: Path, write: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    mode = temporary.stat().st_mode & 0o777
    write(temporary)  # type: ignore[operator]
    temporary.chmod(mode)  # safetensors makes files that only their owner may read; the user's umask decides here
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)
