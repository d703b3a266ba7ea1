"""Weights that training starts from are mapped from their files, so that processes of one machine share them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.models.family import load_family
from bettersynth.models.mgm.model import CONNECTOR
from bettersynth.models.weights import load_tensors
from bettersynth.train.bases import load_start
from bettersynth.train.distributed import Devices
from bettersynth.train.placement import build_placement
from bettersynth.train.prepare import prepare_model

MAPS = Path("/proc/self/maps")
ALONE = Devices(0, 1, torch.device("cpu"))
needs_maps = pytest.mark.skipif(not MAPS.exists(), reason="the system does not list what is mapped")


def mapped_files() -> list[tuple[int, int, str]]:
    """(first address, address after the last, file) of all weight files that are mapped now."""
    lines = (line.split() for line in MAPS.read_text().splitlines())
    found = [(line[0].split("-"), line[-1]) for line in lines if line[-1].endswith((".safetensors", ".bin", ".pt"))]
    return [(int(low, 16), int(high, 16), file) for (low, high), file in found]


def where(parameters: list[tuple[str, nn.Parameter]]) -> dict[str, str]:
    """The file that each parameter lies in; "" for memory of its own."""
    files = mapped_files()
    return {
        name: next((file for low, high, file in files if low <= parameter.data_ptr() < high), "")
        for name, parameter in parameters
    }


@pytest.fixture(scope="module")
def bagel(tmp_path_factory: pytest.TempPathFactory) -> StageConfig:
    spec = importlib.util.spec_from_file_location("unified_kit", Path(__file__).parent / "unified_kit.py")
    assert spec and spec.loader
    kit: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    folder = tmp_path_factory.mktemp("joint")
    kit.write_model(folder / "model")
    kit.write_data(folder)
    return stage_config(kit.settings(folder, device="cpu")).with_devices(1)


@needs_maps
@pytest.mark.parametrize("name", ["mgm", "bagel"])
def test_a_process_keeps_nothing_of_its_own_until_weights_are_placed(
    name: str, mgm_configure: Callable[..., StageConfig], bagel: StageConfig
) -> None:
    config = mgm_configure(precision="bf16").with_devices(1) if name == "mgm" else bagel
    family = load_family(name)
    model = load_start(config, family, dtype=None)
    places = where(list(model.named_parameters()))
    own = {parameter for parameter, file in places.items() if not file}
    assert own == {p for p in places if p.split(".")[1] in CONNECTOR} if name == "mgm" else not own
    wanted = {key: tensor.float() for key, tensor in load_start(config, family).named_parameters()}
    prepare_model(config, family, model)
    placement = build_placement(config, family, model, ALONE)
    assert not any(where(list(model.named_parameters())).values())
    for key, parameter in model.named_parameters():
        is_trained = parameter.requires_grad
        assert parameter.dtype == (torch.float32 if is_trained or config.precision == "fp32" else torch.bfloat16)
        assert torch.equal(parameter.detach(), wanted[key].to(parameter.dtype)), key
    assert placement.trained


def test_old_pickles_are_read_and_new_ones_mapped(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    for is_new in (True, False):
        path = tmp_path / f"{is_new}.bin"
        torch.save(tensors, path, _use_new_zipfile_serialization=is_new)
        found = load_tensors(path)
        assert all(torch.equal(found[key], tensor) for key, tensor in tensors.items())
        if MAPS.exists():
            assert any(file == str(path) for _, _, file in mapped_files()) == is_new
