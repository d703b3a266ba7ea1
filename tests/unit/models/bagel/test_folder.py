"""A BAGEL folder: sizes, tokenizer, what fits and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models

from bettersynth.core.errors import ConfigError, ConfigErrors, DataError
from bettersynth.models.bagel import convert
from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, load_config
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.tokens import BagelTokenizer
from bettersynth.models.family import load_family
from bettersynth.models.layers.positions import sincos_table
from bettersynth.models.stream import write_stream


@pytest.fixture
def folder(tiny, tmp_path):
    convert.save_checkpoint(convert.build_fresh(tiny, seed=1), tmp_path)
    return tmp_path


def test_round_trip(tiny, folder):
    again = convert.load_checkpoint(folder, dtype=torch.float32)
    fresh = convert.build_fresh(tiny, seed=1)
    assert again.config.files() == tiny.files()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in fresh.state_dict().items())
    other = convert.build_fresh(tiny, seed=2)
    assert not torch.equal(other.vae2llm.weight, fresh.vae2llm.weight)


def test_a_fresh_model_predicts_no_velocity_and_has_equal_twins(tiny):
    model = convert.build_fresh(tiny, seed=1)
    state = model.state_dict()
    assert not model.llm2vae.weight.any()
    for name, tensor in state.items():
        if "_moe_gen" in name:
            assert torch.equal(tensor, state[name.replace("_moe_gen", "")]), name


def test_tables_may_be_absent(tiny, folder):
    state = convert.build_fresh(tiny, seed=1).state_dict()
    write_stream(folder / "ema.safetensors", {n: v for n, v in state.items() if n not in convert.TABLES})
    again = convert.load_checkpoint(folder, dtype=torch.float32)
    assert torch.equal(again.latent_pos_embed.pos_embed, sincos_table(6, 16))


def test_the_stored_table_decides_the_latent_size(folder):
    (folder / "bagel_config.json").unlink()
    assert convert.load_checkpoint(folder, dtype=torch.float32).config.max_latent_size == 6


def test_the_official_sizes_without_our_files(tmp_path):
    (tmp_path / "llm_config.json").write_text("{}")
    (tmp_path / "vit_config.json").write_text("{}")
    config = load_config(tmp_path)
    assert (config.max_latent_size, config.vit_layers, config.latent_dim, config.latent_stride_px) == (64, 26, 64, 16)
    with torch.device("meta"):
        model = BagelModel(config)
    own = model.state_dict()
    assert len(own) == 1223
    assert sum(tensor.numel() for tensor in own.values()) == 14_607_260_128


def test_tensors_that_do_not_fit_are_named(tiny, folder):
    state = dict(convert.build_fresh(tiny, seed=1).state_dict())
    state["vae2llm.weight"] = torch.zeros(3, 3)
    state["extra"] = state.pop("llm2vae.bias")
    write_stream(folder / "ema.safetensors", state)
    with pytest.raises(DataError) as caught:
        convert.load_checkpoint(folder, dtype=torch.float32)
    for name in ("vae2llm.weight", "extra", "llm2vae.bias", "3 tensors"):
        assert name in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="files are missing in the model folder"):
        convert.load_checkpoint(tmp_path, dtype=torch.float32)


def test_settings_of_another_network_are_refused_all_at_once(folder):
    for name, change in (("llm_config.json", {"rope_scaling": {"x": 1}}), ("vit_config.json", {"hidden_act": "relu"})):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigErrors) as caught:
        load_config(folder)
    assert "rope_scaling" in str(caught.value) and "hidden_act" in str(caught.value)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigErrors, match="num_attention_heads"):
        BagelConfig(llm=LlmConfig(num_attention_heads=28, num_key_value_heads=3)).check()


def test_absent_markers_are_added_behind_the_vocabulary(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<|im_end|>": 2, "?": 3}, unk_token="?"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = BagelTokenizer(tmp_path)
    assert loaded.special == SpecialTokens(bos=4, eos=2, image_start=5, image_end=6) and loaded.num_added == 3
    assert loaded.decode([4, 0, 2]) == "a"


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        BagelTokenizer(tmp_path)


def test_the_family_loads_saves_and_refuses_stages(folder, tmp_path):
    family = load_family("bagel")
    model = family.load_checkpoint(folder, dtype=torch.float32)
    assert len(family.trainable(model, 1)) == len(list(model.named_parameters()))
    family.save_checkpoint(model, tmp_path / "half", dtype=torch.bfloat16)
    assert family.load_checkpoint(tmp_path / "half", dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="one whole folder"):
        family.load_adapter(model, folder)
    with pytest.raises(ConfigError, match="not a BAGEL model"):
        family.trainable(torch.nn.Linear(1, 1), 1)
