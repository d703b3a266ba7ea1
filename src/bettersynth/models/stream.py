"""Safetensors files read and written one tensor at a time, so that a model never exists twice in memory.

A mapped file counts as memory of the process while its pages are touched; plain reads straight into a tensor do not.
Layout of a file: 8 bytes little-endian length N, N bytes of JSON (name -> dtype, shape, byte range), the bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH_BYTES = 8
_CAST_CHUNK_BYTES = 64 * 2**20
"""A tensor of another type is cast through pieces of this size."""


class TensorReader:
    """The tensors of one safetensors file, read on demand. A context manager.

    Args:
        path: the file.

    Raises:
        DataError: missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(t("weight file not found"), where=str(path))
        self._file: BinaryIO = path.open("rb", buffering=0)
        try:
            length = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
            size = path.stat().st_size
            if not 0 < length <= size - _LENGTH_BYTES:
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(self._file.read(length))
            header.pop("__metadata__", None)
            self._start = _LENGTH_BYTES + length
            self._entries: dict[str, dict[str, Any]] = {name: self._checked(entry) for name, entry in header.items()}
            end = max((entry["data_offsets"][1] for entry in self._entries.values()), default=0)
            if self._start + end > size:
                raise ValueError(f"{size} bytes instead of {self._start + end}")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            self._file.close()
            raise DataError(t("damaged safetensors file"), where=str(path), got=error) from error

    @staticmethod
    def _checked(entry: dict[str, Any]) -> dict[str, Any]:
        begin, end = entry["data_offsets"]
        wanted = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
        if begin < 0 or end - begin != wanted:
            raise ValueError(f"{end - begin} bytes for shape {entry['shape']}")
        return entry

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Names in the order of their bytes, so that reading all of them is one pass."""
        return iter(sorted(self._entries, key=lambda name: self._entries[name]["data_offsets"][0]))

    def shape(self, name: str) -> torch.Size:
        """Shape of a tensor, from the header alone."""
        return torch.Size(self._entries[name]["shape"])

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """One tensor in memory of its own, cast to ``dtype`` if it is a floating tensor of another type.

        Raises:
            DataError: the file ends too early.
        """
        entry = self._entries[name]
        stored, shape = _DTYPES[entry["dtype"]], entry["shape"]
        wanted = dtype if dtype is not None and stored.is_floating_point else stored
        result = torch.empty(shape, dtype=wanted)
        self._file.seek(self._start + entry["data_offsets"][0])
        flat = result.view(-1)
        if wanted == stored:
            self._fill(flat, name)
            return result
        step = max(1, _CAST_CHUNK_BYTES // stored.itemsize)
        for begin in range(0, flat.numel(), step):
            piece = torch.empty(min(step, flat.numel() - begin), dtype=stored)
            self._fill(piece, name)
            flat[begin : begin + len(piece)] = piece
        return result

    def _fill(self, flat: torch.Tensor, name: str) -> None:
        if not flat.numel():
            return
        view = memoryview(flat.view(torch.uint8).numpy())
        while len(view):
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise DataError(t("damaged safetensors file"), where=str(self.path), got=name)
            view = view[count:]


def write_stream(
    path: Path,
    tensors: Mapping[str, Callable[[], torch.Tensor] | torch.Tensor],
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a safetensors file one tensor at a time: temporary file, fsync, rename.

    Args:
        path: the file.
        tensors: a tensor or a function that makes one, by name; a function is called when its turn comes.
        shapes: type and shape of tensors given as functions.
        dtype: floating tensors are written in this type.

    Raises:
        DataError: a function made a tensor of another shape than announced.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(tensors):
        value = tensors[name]
        kind, shape = (value.dtype, tuple(value.shape)) if isinstance(value, torch.Tensor) else (shapes or {})[name]
        kind = dtype if dtype is not None and kind.is_floating_point else kind
        size = math.prod(shape) * kind.itemsize
        header[name] = {"dtype": _NAMES[kind], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        file.write(text)
        for name in sorted(tensors):
            value = tensors[name]
            tensor = value if isinstance(value, torch.Tensor) else value()
            if list(tensor.shape) != header[name]["shape"]:
                raise DataError(t("the tensor has another shape than announced"), where=name, got=tuple(tensor.shape))
            stored = tensor.detach().to("cpu", _DTYPES[header[name]["dtype"]]).contiguous()
            file.write(memoryview(stored.view(-1).view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
