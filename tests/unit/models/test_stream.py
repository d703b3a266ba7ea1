from __future__ import annotations

import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from bettersynth.core.errors import DataError
from bettersynth.models import stream
from bettersynth.models.stream import TensorReader, write_stream

TENSORS = {
    "b": torch.arange(12, dtype=torch.float32).view(3, 4) / 7,
    "a": torch.arange(5, dtype=torch.bfloat16),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "ids": torch.arange(4),
    "flags": torch.tensor([True, False]),
}


def test_we_read_what_the_library_writes(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    with TensorReader(tmp_path / "x.safetensors") as reader:
        assert set(reader) == set(TENSORS)
        for name, tensor in TENSORS.items():
            got = reader.read(name)
            assert got.dtype == tensor.dtype and torch.equal(got, tensor) and reader.shape(name) == tensor.shape


def test_the_library_reads_what_we_write(tmp_path):
    lazy = {**TENSORS, "late": lambda: torch.ones(2, 2)}
    write_stream(tmp_path / "x.safetensors", lazy, {"late": (torch.float32, (2, 2))})
    got = load_file(tmp_path / "x.safetensors")
    assert torch.equal(got.pop("late"), torch.ones(2, 2))
    assert set(got) == set(TENSORS)
    assert all(got[name].dtype == t.dtype and torch.equal(got[name], t) for name, t in TENSORS.items())
    assert not list(tmp_path.glob("*.tmp"))


def test_floats_are_cast_in_pieces_and_integers_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_CAST_CHUNK_BYTES", 20)
    write_stream(tmp_path / "x.safetensors", TENSORS)
    with TensorReader(tmp_path / "x.safetensors") as reader:
        assert torch.equal(reader.read("b", torch.float16), TENSORS["b"].half())
        assert reader.read("ids", torch.float16).dtype == torch.int64
    write_stream(tmp_path / "y.safetensors", TENSORS, dtype=torch.bfloat16)
    assert torch.equal(load_file(tmp_path / "y.safetensors")["b"], TENSORS["b"].bfloat16())


@pytest.mark.parametrize("damage", ["cut", "header", "short", "offsets"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    write_stream(path, TENSORS)
    data = path.read_bytes()
    damaged = {
        "cut": data[:-4],
        "header": data[:8] + b"!" + data[9:],
        "short": b"\x01",
        "offsets": struct.pack("<Q", 10**9) + data[8:],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match="damaged safetensors file") as caught:
        TensorReader(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="not found"):
        TensorReader(tmp_path / "none.safetensors")


def test_a_tensor_of_another_shape_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "x.safetensors"
    write_stream(path, {"a": torch.ones(2)})
    with pytest.raises(DataError, match="another shape"):
        write_stream(path, {"a": lambda: torch.ones(3)}, {"a": (torch.float32, (2,))})
    assert torch.equal(load_file(path)["a"], torch.ones(2))
