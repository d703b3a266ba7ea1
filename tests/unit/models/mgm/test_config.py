from __future__ import annotations

import pytest

from bettersynth.core.errors import ConfigError, ConfigErrors
from bettersynth.models.mgm import load
from bettersynth.models.mgm.model import CONNECTOR


def _count(model, prefix: str) -> tuple[int, int]:
    found = [tensor for name, tensor in model.state_dict().items() if name.startswith(prefix)]
    return len(found), sum(tensor.numel() for tensor in found)


def test_mgm_2b_has_the_published_tensors_and_sizes():
    model = load.build_empty(load.preset_config("mgm_2b"))
    config = model.config
    assert len(model.state_dict()) == 911
    assert (config.tokens_per_image, config.vision_layers, sum(config.dims)) == (576, 23, 2880)
    assert _count(model, "model.vision_tower.") == (391, 303_507_456)
    assert _count(model, "model.vision_tower_aux.") == (340, 196_227_264)
    assert _count(model, "model.mm_projector.") == (4, 6_295_552)
    assert sum(_count(model, f"model.{name}.")[1] for name in CONNECTOR) == 13_259_008
    assert sum(parameter.numel() for _, parameter in model.connector_parameters()) == 13_259_008
    language = [_count(model, f"model.{name}")[1] for name in ("embed_tokens.", "layers.", "norm.")]
    assert sum(language) == 2_506_172_416
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["model.layers.17.self_attn.k_proj.weight"] == (256, 2048)
    assert shapes["model.vlm_uni_aux_projector.1.weight"] == (1024, 2880)
    assert shapes["model.vision_tower_aux.vision_stages.2.blocks.26.mlp.fc1.weight"] == (3072, 768)
    assert shapes["model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight"] == (577, 1024)


@pytest.mark.parametrize("name", load.preset_names())
def test_every_preset_builds(name):
    assert load.build_empty(load.preset_config(name)).config.tokens_per_image > 0


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        load.preset_config("mgm_2c")
    assert "mgm_2b" in (caught.value.hint or "")


def test_all_mismatched_sizes_are_reported_at_once(tiny_config):
    with pytest.raises(ConfigErrors) as caught:
        tiny_config.with_fields(image_size_aux=100, hidden_act="relu", mm_hidden_size=7).check()
    text = caught.value.render()
    assert "image_size_aux" in text and "multiple of 96" in text
    assert "hidden_act" in text and "mm_hidden_size" in text


def test_tokens_of_hd_mode(tiny_config):
    assert tiny_config.with_fields(image_grid=2).tokens_per_image == 4 * 36
    assert tiny_config.with_fields(image_grid=2, image_global=True).tokens_per_image == 5 * 36


def test_unknown_config_fields_survive(tiny_config):
    assert tiny_config.with_fields(someones_note="kept").to_json()["someones_note"] == "kept"
