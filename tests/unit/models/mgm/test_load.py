from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.models.family import BaseFolders, load_family
from bettersynth.models.mgm import convert, load
from bettersynth.models.weights import load_folder

FAMILY = load_family("mgm")


def _bases(zoo: Path) -> BaseFolders:
    return BaseFolders(
        llm=next((zoo / "LLM" / "gemma").iterdir()),
        vision_tower=next((zoo / "OpenAI").glob("clip*")),
        vision_tower_aux=next((zoo / "OpenAI").glob("openclip*")),
        image_size_aux=128,
    )


def _load(zoo: Path):
    return FAMILY.load_base(_bases(zoo), dtype=torch.float32, seed=1)


def _same(left, right) -> bool:
    one, two = left.state_dict(), right.state_dict()
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def zoo(golden_copy, tmp_path):
    return Path(shutil.copytree(golden_copy / "model_zoo", tmp_path / "model_zoo"))


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    folder = tmp_path / "MGM-2B"
    convert.save_checkpoint(tiny_model, folder, dtype=torch.float32)
    return folder


def _as_one_pickle(folder: Path, rename=lambda name: name, extra=None) -> None:
    tensors = {rename(name): tensor for name, tensor in load_folder(folder).items()}
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    torch.save({**tensors, **(extra or {})}, folder / "pytorch_model.bin")


def test_language_model_from_one_pickle_with_a_stored_head(zoo):
    wanted = _load(zoo)
    llm = _bases(zoo).llm
    head = load_folder(llm)["model.embed_tokens.weight"]
    _as_one_pickle(llm, extra={"lm_head.weight": head.clone()})
    assert _same(_load(zoo), wanted)


def test_language_model_from_one_safetensors_file(zoo):
    wanted = _load(zoo)
    llm = _bases(zoo).llm
    tensors = load_folder(llm)
    for path in llm.glob("*.safetensors*"):
        path.unlink()
    save_file(tensors, llm / "model.safetensors")
    assert _same(_load(zoo), wanted)


def test_clip_as_a_whole_in_a_pickle(zoo):
    """The public CLIP folder holds text tower and position ids too, and nests the vision config."""
    wanted = _load(zoo)
    clip = _bases(zoo).vision_tower
    extra = {"vision_model.embeddings.position_ids": torch.arange(17), "text_model.x": torch.zeros(1)}
    _as_one_pickle(clip, lambda name: "vision_model." + name.removeprefix("vision_model."), extra)
    config = json.loads((clip / "config.json").read_text())
    (clip / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": config}))
    assert _same(_load(zoo), wanted)


def test_clip_without_its_prefix(zoo):
    wanted = _load(zoo)
    _as_one_pickle(_bases(zoo).vision_tower, lambda name: name.removeprefix("vision_model."))
    assert _same(_load(zoo), wanted)


def test_sizes_that_do_not_fit_are_refused_before_loading(zoo):
    from dataclasses import replace

    with pytest.raises(ConfigError, match="problem"):
        FAMILY.load_base(replace(_bases(zoo), image_size_aux=100), dtype=torch.float32, seed=1)


def test_base_without_weights_says_what_was_searched(zoo):
    for path in _bases(zoo).llm.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(DataError, match="no weights found") as caught:
        _load(zoo)
    assert "pytorch_model.bin" in caught.value.render()


# -- full checkpoints ----------------------------------------------------------------------------------------------


def test_single_file_checkpoints_load(tiny_model, checkpoint):
    """The original needs an index file; we do not."""
    tensors = load_folder(checkpoint)
    for path in checkpoint.glob("*.safetensors*"):
        path.unlink()
    save_file(tensors, checkpoint / "model.safetensors")
    assert _same(FAMILY.load_checkpoint(checkpoint, dtype=torch.float32), tiny_model)
    (checkpoint / "model.safetensors").unlink()
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    assert _same(FAMILY.load_checkpoint(checkpoint, dtype=torch.float32), tiny_model)


def test_saving_again_with_fewer_shards_leaves_no_stale_one(tiny_model, tmp_path):
    convert.save_checkpoint(tiny_model, tmp_path, dtype=torch.float32, max_shard_bytes=100_000)
    many = set(tmp_path.glob("model-*"))
    convert.save_checkpoint(tiny_model, tmp_path, dtype=torch.float32)
    assert len(many) > 1
    assert [path.name for path in tmp_path.glob("model-*")] == ["model-00001-of-00001.safetensors"]
    assert _same(FAMILY.load_checkpoint(tmp_path, dtype=torch.float32), tiny_model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_saved_in_half_precision(tiny_model, tmp_path, dtype):
    FAMILY.save_checkpoint(tiny_model, tmp_path, dtype=dtype)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] in ("bfloat16", "float16")
    again = FAMILY.load_checkpoint(tmp_path, dtype=dtype)
    assert {tensor.dtype for tensor in again.state_dict().values()} == {dtype}
    torch.testing.assert_close(again.embedding.float(), tiny_model.embedding, rtol=0.01, atol=0.01)


@pytest.fixture
def towerless(zoo, golden_copy, tmp_path):
    """A checkpoint whose towers lie elsewhere, as some trainers store it."""
    folder = tmp_path / "output" / "training" / "MGM-2B-x"
    folder.mkdir(parents=True)
    tensors = {
        name: tensor for name, tensor in load_folder(golden_copy / "checkpoint").items() if "vision_tower" not in name
    }
    save_file(tensors, folder / "model.safetensors")
    shutil.copy(golden_copy / "checkpoint" / "config.json", folder)
    shutil.copy(golden_copy / "checkpoint" / "tokenizer.json", folder)
    return folder


def test_towers_are_found_beside_a_parent_folder(towerless, golden_copy):
    wanted = FAMILY.load_checkpoint(golden_copy / "checkpoint", dtype=torch.float32)
    assert _same(FAMILY.load_checkpoint(towerless, dtype=torch.float32), wanted)


@pytest.mark.parametrize("is_renamed", [False, True])
def test_towers_are_found_under_a_given_model_zoo(towerless, zoo, tmp_path, golden_copy, is_renamed):
    elsewhere = tmp_path / "far" / ("zoo" if is_renamed else "model_zoo")
    elsewhere.parent.mkdir()
    shutil.move(zoo, elsewhere)
    wanted = FAMILY.load_checkpoint(golden_copy / "checkpoint", dtype=torch.float32)
    assert _same(FAMILY.load_checkpoint(towerless, dtype=torch.float32, model_zoo=elsewhere), wanted)


def test_towers_relative_to_the_working_directory(towerless, zoo, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    shutil.move(zoo, tmp_path / "cwd" / "model_zoo")
    monkeypatch.chdir(tmp_path / "cwd")
    assert FAMILY.load_checkpoint(towerless, dtype=torch.float32)


def test_missing_tower_lists_every_place(towerless, zoo):
    shutil.rmtree(zoo)
    with pytest.raises(DataError, match="tower folder not found") as caught:
        FAMILY.load_checkpoint(towerless, dtype=torch.float32, model_zoo=Path("/nowhere/model_zoo"))
    text = caught.value.render()
    assert "/nowhere/model_zoo/OpenAI/clip-vit-tiny-patch14" in text and str(towerless.parent.parent) in text


def test_missing_unexpected_and_misshapen_tensors_are_named(checkpoint):
    tensors = load_folder(checkpoint)
    shard = next(checkpoint.glob("model-*.safetensors"))
    tensors["model.stranger"] = torch.zeros(2)
    tensors["model.norm.weight"] = torch.zeros(3)
    del tensors["model.mm_projector.0.bias"]
    save_file(tensors, shard)
    with pytest.raises(DataError, match="3 tensors") as caught:
        FAMILY.load_checkpoint(checkpoint, dtype=torch.float32)
    text = caught.value.render()
    assert all(part in text for part in ("model.stranger", "model.norm.weight", "mm_projector.0.bias"))


def test_missing_checkpoint_and_config(tmp_path):
    with pytest.raises(DataError, match="not found"):
        FAMILY.load_checkpoint(tmp_path / "nowhere", dtype=torch.float32)


def test_stage_1_folder_is_not_a_checkpoint(tiny_model, tmp_path):
    FAMILY.save_adapter(tiny_model, tmp_path)
    with pytest.raises(DataError, match="only what stage 1 trained"):
        FAMILY.load_checkpoint(tmp_path, dtype=torch.float32)


# -- adapters ------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tiny_model):
    model = load.build(tiny_model.config, tiny_model.state_dict(), dtype=torch.float32)
    with torch.no_grad():
        for _, parameter in model.connector_parameters():
            parameter.zero_()
    return model


@pytest.mark.parametrize("name", convert.ADAPTER_FILES)
def test_adapter_round_trip(tiny_model, other, tmp_path, name):
    FAMILY.save_adapter(tiny_model, tmp_path)
    loaded = FAMILY.load_adapter(other, tmp_path / name)
    assert len(loaded) == 16 and _same(other, tiny_model)
    assert not any("vision_tower" in key for key in torch.load(tmp_path / "mm_projector.bin", weights_only=True))


def test_nested_and_prefixed_adapter(tiny_model, other, tmp_path):
    tensors = {"base_model." + name: p.detach() for name, p in tiny_model.connector_parameters()}
    torch.save({"model": tensors}, tmp_path / "mm_projector.bin")
    assert len(FAMILY.load_adapter(other, tmp_path)) == 16 and _same(other, tiny_model)


def test_adapter_of_projector_alone_is_loaded_and_the_rest_reported(tiny_model, other, tmp_path, caplog):
    tensors = {name: p.detach() for name, p in tiny_model.connector_parameters() if "mm_projector" in name}
    torch.save(tensors, tmp_path / "mm_projector.bin")
    with caplog.at_level(logging.WARNING):
        loaded = FAMILY.load_adapter(other, tmp_path)
    assert loaded == sorted(tensors)
    assert "vlm_uni_aux_projector" in caplog.text


def _broken(kind: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if kind == "piece missing":
        return {name: tensor for name, tensor in tensors.items() if not name.endswith("mm_projector.2.bias")}
    if kind == "wrong shape":
        return {**tensors, "model.mm_projector.2.bias": torch.zeros(3)}
    if kind == "unknown part":
        return {**tensors, "model.lora_a": torch.zeros(3)}
    if kind == "unknown piece":
        return {**tensors, "model.mm_projector.4.bias": torch.zeros(3)}
    return {"model.vision_tower.vision_tower.x": torch.zeros(1)}


@pytest.mark.parametrize("kind", ["piece missing", "wrong shape", "unknown part", "unknown piece", "towers alone"])
def test_adapter_that_does_not_fit_changes_nothing(tiny_model, other, tmp_path, kind):
    tensors = {name: p.detach() for name, p in tiny_model.connector_parameters()}
    torch.save(_broken(kind, tensors), tmp_path / "mm_projector.bin")
    with pytest.raises(DataError) as caught:
        FAMILY.load_adapter(other, tmp_path)
    assert str(tmp_path) in caught.value.render()
    assert not any(parameter.any() for _, parameter in other.connector_parameters())


def test_no_adapter_lists_what_was_searched(other, tmp_path):
    with pytest.raises(DataError, match="no adapter found") as caught:
        FAMILY.load_adapter(other, tmp_path)
    assert "mm_projector.safetensors" in caught.value.render()


def test_adapter_in_safetensors_holds_the_connector_only(tiny_model, tmp_path):
    FAMILY.save_adapter(tiny_model, tmp_path)
    assert set(load_file(tmp_path / "mm_projector.safetensors")) == {n for n, _ in tiny_model.connector_parameters()}


# -- stages --------------------------------------------------------------------------------------------------------


def test_unknown_stage_and_tower_training_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="no such training stage"):
        FAMILY.trainable(tiny_model, 3)
    tiny_model.config = tiny_model.config.with_fields(optimize_vision_tower=True)
    with pytest.raises(ConfigError, match="training a vision tower"):
        FAMILY.trainable(tiny_model, 1)


def test_other_modules_are_refused():
    with pytest.raises(ConfigError, match="not an MGM model"):
        FAMILY.trainable(torch.nn.Linear(1, 1), 1)
