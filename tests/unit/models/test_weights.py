from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from bettersynth.core.errors import DataError
from bettersynth.models import weights


class Exploit:
    """A pickle that would run a command when loaded carelessly."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


@pytest.fixture
def tensors():
    return {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4)}


def _same(left, right):
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_single_safetensors(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors")
    assert _same(weights.load_folder(tmp_path), tensors)


@pytest.mark.parametrize("is_zip", [True, False])
def test_single_pickle(tmp_path, tensors, is_zip):
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    assert _same(weights.load_folder(tmp_path), tensors)


def test_sharded_pickle(tmp_path, tensors):
    for number, (name, tensor) in enumerate(tensors.items(), 1):
        torch.save({name: tensor}, tmp_path / f"pytorch_model-{number:05d}-of-00002.bin")
    names = {name: f"pytorch_model-{number:05d}-of-00002.bin" for number, name in enumerate(tensors, 1)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    assert _same(weights.load_folder(tmp_path), tensors)


def test_written_shards_read_back(tmp_path, tensors):
    weights.save_sharded(tensors, tmp_path, torch.float32, max_bytes=20)
    assert (tmp_path / "model-00002-of-00002.safetensors").is_file()
    index = json.loads((tmp_path / weights.SAFE_INDEX).read_text())
    assert index["metadata"]["total_size"] == 40
    assert _same(weights.load_folder(tmp_path), tensors)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_are_as_readable_as_the_umask_says(tmp_path, tensors, mask):
    before = os.umask(mask)
    try:
        weights.save_tensors(tensors, tmp_path / "a.safetensors")
        weights.save_pickle(tensors, tmp_path / "a.bin")
        weights.write_json({}, tmp_path / "a.json")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_nested_dictionary_is_unwrapped(tmp_path, tensors, key):
    torch.save({key: tensors, "epoch": 1}, tmp_path / "x.bin")
    assert _same(weights.load_tensors(tmp_path / "x.bin"), tensors)


def test_nothing_found_lists_what_was_searched(tmp_path):
    with pytest.raises(DataError) as caught:
        weights.find_weights(tmp_path)
    assert "model.safetensors" in caught.value.render() and "pytorch_model.bin" in caught.value.render()
    with pytest.raises(DataError, match="model folder not found"):
        weights.find_weights(tmp_path / "nowhere")


def test_missing_shard_is_named(tmp_path, tensors):
    weights.save_sharded(tensors, tmp_path, torch.float32, max_bytes=20)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(DataError) as caught:
        weights.load_folder(tmp_path)
    assert "model-00001-of-00002.safetensors" in caught.value.render()


@pytest.mark.parametrize("how", ["torch", "plain"])
def test_pickle_with_code_is_refused_and_not_run(tmp_path, capsys, how):
    path = tmp_path / "mm_projector.bin"
    if how == "torch":
        torch.save({"a": Exploit()}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Exploit()}, protocol=2))
    with pytest.raises(DataError, match="contains code") as caught:
        weights.load_tensors(path)
    assert str(path) in caught.value.render() and "safetensors" in (caught.value.hint or "")
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x.bin", "x.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 100])
def test_damaged_file(tmp_path, tensors, name, keep):
    path = tmp_path / name
    if name.endswith("bin"):
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged"):
        weights.load_tensors(path)


def test_a_text_is_a_damaged_weight_file(tmp_path):
    (tmp_path / "x.pth").write_text("a red dog\nb\n")
    with pytest.raises(DataError, match="damaged weight file"):
        weights.load_tensors(tmp_path / "x.pth")


def test_pickle_without_tensors(tmp_path):
    torch.save([1, 2], tmp_path / "x.bin")
    with pytest.raises(DataError, match="no dictionary of tensors"):
        weights.load_tensors(tmp_path / "x.bin")
    with pytest.raises(DataError, match="not found"):
        weights.load_tensors(tmp_path / "y.bin")


def test_unreadable_index(tmp_path):
    (tmp_path / weights.SAFE_INDEX).write_text("{")
    with pytest.raises(DataError, match="weight index"):
        weights.load_folder(tmp_path)


def test_interrupted_write_leaves_the_old_file(tmp_path, tensors, monkeypatch):
    path = tmp_path / "x.safetensors"
    weights.save_tensors(tensors, path)
    before = path.read_bytes()

    def fail(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        weights.save_tensors({"other": torch.zeros(1)}, path)
    assert path.read_bytes() == before
