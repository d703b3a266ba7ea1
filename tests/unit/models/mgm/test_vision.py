from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from bettersynth.core.errors import DataError
from bettersynth.models.mgm.vision import ConvNeXtTrunk, load_convnext_trunk, trunk_to_open_clip


@pytest.fixture
def folder(golden_copy):
    return next((golden_copy / "model_zoo" / "OpenAI").glob("openclip*"))


def test_map_sizes():
    maps = ConvNeXtTrunk((1, 2, 1, 1), (4, 6, 8, 10))(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 24), (2, 6, 8, 12), (2, 8, 4, 6), (2, 10, 2, 3)]


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"])
def test_safetensors_and_pickle_give_the_same_trunk(folder, tmp_path, name):
    trunk = load_convnext_trunk(folder)
    save_file(trunk_to_open_clip(trunk), tmp_path / name)
    again = load_convnext_trunk(tmp_path)
    assert (again.depths, again.dims) == (trunk.depths, trunk.dims)
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(trunk(x), again(x), strict=True))


def test_folder_that_normalises_pixels_differently_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "x")
    path = tmp_path / "x" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    path.write_text(json.dumps(config))
    with pytest.raises(DataError, match="share CLIP's pixel mean"):
        load_convnext_trunk(tmp_path / "x")


def test_missing_and_incomplete_weights(folder, tmp_path):
    with pytest.raises(DataError, match="no weights found") as caught:
        load_convnext_trunk(tmp_path)
    assert "open_clip_pytorch_model.bin" in caught.value.render()
    tensors = trunk_to_open_clip(load_convnext_trunk(folder))
    tensors.pop("visual.trunk.stem.0.bias")
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(DataError, match="1 tensor is missing") as caught:
        load_convnext_trunk(tmp_path)
    assert "vision_stem.0.bias" in caught.value.render()
    save_file({"text.weight": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(DataError, match="no ConvNeXt trunk"):
        load_convnext_trunk(tmp_path)
