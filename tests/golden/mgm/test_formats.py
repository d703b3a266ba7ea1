"""The set's files are read in every form, and what we write reads back the same."""

from __future__ import annotations

import json

import pytest
import torch

from bettersynth.models.family import BaseFolders, load_family
from bettersynth.models.mgm import convert, load


@pytest.fixture(scope="module")
def bases(golden):
    zoo = golden.path("model_zoo")
    config = golden.json("checkpoint/config.json")
    return BaseFolders(
        llm=next((zoo / "LLM" / "gemma").iterdir()),
        vision_tower=zoo.parent / config["mm_vision_tower"],
        vision_tower_aux=zoo.parent / config["mm_vision_tower_aux"],
        image_size_aux=config["image_size_aux"],
    )


def test_state_names_and_shapes(golden, model):
    table = golden.json("parameters.json")["state_dict_keys"]
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    harmless = {name for name in table if convert.is_harmless(name)}
    assert own == {name: shape for name, shape in table.items() if name not in harmless}


def test_bases_plus_adapter_equal_the_checkpoint(golden, model, bases):
    family = load_family("mgm")
    built = family.load_base(bases, dtype=torch.float32, seed=3)
    assert not torch.equal(built.model.mm_projector[0].weight, model.model.mm_projector[0].weight)
    loaded = family.load_adapter(built, golden.path("stage1"))
    assert set(loaded) == {name for name, _ in model.connector_parameters()}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, built.state_dict()[name]), name


def test_fresh_parts_depend_on_the_seed_alone(bases):
    config = load_family("mgm").load_base(bases, dtype=torch.float32, seed=3).config
    first = load.fresh_connector(config, 3)
    torch.rand(5)
    assert all(torch.equal(tensor, load.fresh_connector(config, 3)[name]) for name, tensor in first.items())
    name = "model.mm_projector.0.weight"
    assert not torch.equal(first[name], load.fresh_connector(config, 4)[name])


def test_stage_1_adapter_of_the_original_with_its_config(golden, model, tmp_path):
    convert.save_adapter(model, tmp_path, include_towers=True)
    wanted = torch.load(golden.path("stage1/mm_projector.bin"), weights_only=True)
    got = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert set(got) == set(wanted)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    ours, theirs = json.loads((tmp_path / "config.json").read_text()), golden.json("stage1/config.json")
    differing = {key for key in theirs if ours.get(key) != theirs[key]}
    assert differing <= {"image_aspect_ratio"}  # the checkpoint is of stage 2, which pads


def test_config_round_trip(golden, model, tmp_path):
    convert.save_checkpoint(model, tmp_path, dtype=torch.float32)
    ours, theirs = json.loads((tmp_path / "config.json").read_text()), golden.json("checkpoint/config.json")
    assert {key: ours.get(key) for key in theirs} == theirs
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert {key: generation[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")} == {
        key: golden.json("checkpoint/generation_config.json")[key]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
    }


@pytest.mark.parametrize("shard_bytes", [10**9, 300_000])
def test_checkpoint_round_trip_needs_no_tower_folder(golden, model, tmp_path, shard_bytes):
    convert.save_checkpoint(model, tmp_path, dtype=torch.float32, max_shard_bytes=shard_bytes)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(model.state_dict())
    assert (tmp_path / "tokenizer.json").read_bytes() == golden.path("checkpoint/tokenizer.json").read_bytes()
    again = load_family("mgm").load_checkpoint(tmp_path, dtype=torch.float32)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
