"""The original trainer's behaviour as named switches: what they do, what they stand for, where they are allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bettersynth.config.train import ORIGINAL, StageConfig
from bettersynth.core.errors import ConfigError, RuleError
from bettersynth.models.family import load_family
from bettersynth.models.mgm.vision import ConvNeXtTrunk
from bettersynth.train.callbacks import Callback, read_log
from bettersynth.train.prepare import prepare_model
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]
PLACES = {"data": Path("d.json"), "model_zoo": Path("zoo")}


def test_original_stands_for_its_switches(configure: Configure) -> None:
    config = configure(reproduce="original")
    assert {key: getattr(config, key) for key in ORIGINAL} == ORIGINAL
    assert configure(reproduce="original", stochastic_depth=0).stochastic_depth == 0
    assert config.result_settings() == configure(**ORIGINAL).result_settings()
    assert {"stochastic_depth", "hidden_act", "reproduce"}.isdisjoint(configure().result_settings())


def test_it_wins_over_a_preset_and_is_allowed_on_locked_tracks() -> None:
    config = stage_settings(load_preset("solution"), 1, {**PLACES, "reproduce": "original"})
    assert (config.loss_normalization, config.stochastic_depth) == ("micro_batch", 0.1)
    assert stage_settings(load_preset("online"), 2, {**PLACES, "reproduce": "original"}).stochastic_depth == 0.1
    with pytest.raises(RuleError, match="stochastic_depth changes how the model is trained"):
        stage_settings(load_preset("online"), 2, {**PLACES, "stochastic_depth": 0.2})


def test_features_that_differ_each_time_cannot_be_kept(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="feature_cache must be off"):
        configure(stochastic_depth=0.1, feature_cache="cache")


def test_a_block_is_left_out_or_counts_more() -> None:
    torch.manual_seed(0)
    trunk = ConvNeXtTrunk((1, 2, 1), (4, 8, 12), gamma_init=0.5)
    trunk.set_stochastic_depth(0.3)
    assert [block.drop_rate for block in trunk.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    x = torch.randn(6, 3, 32, 32)
    assert torch.equal(trunk.eval()(x)[-1], trunk(x)[-1])
    assert not torch.equal(trunk.train()(x)[-1], trunk(x)[-1])
    block, y = trunk.blocks[-1], torch.randn(400, 12, 4, 4)
    with torch.no_grad():
        added = block.eval()(y) - y
        kept = ((block.train()(y) - y) / added).flatten(1).mean(1)
    assert set(kept.mul(0.7).round(decimals=3).tolist()) == {0.0, 1.0}
    assert kept.mean() == pytest.approx(1.0, abs=0.1)


def test_the_form_of_gelu_is_written_into_the_checkpoint(mgm_configure: Configure, tmp_path: Path) -> None:
    from bettersynth.train.bases import load_start

    found = {}
    for name in ("gelu", "gelu_pytorch_tanh"):
        config, family = mgm_configure(hidden_act=name), load_family("mgm")
        model = load_start(config, family)
        prepare_model(config, family, model)
        family.save_checkpoint(model, tmp_path / name, dtype=torch.float32)
        assert json.loads((tmp_path / name / "config.json").read_text())["hidden_act"] == name
        found[name] = model.model.layers[0].mlp.act_fn(torch.tensor(1.0)).item()
    assert found["gelu"] != found["gelu_pytorch_tanh"]


def test_training_as_the_original_does_is_repeatable(mgm_configure: Configure, tmp_path: Path) -> None:
    def losses(name: str, **changes: object) -> list[float]:
        config = mgm_configure(stage=1, epochs=1, lr=0.003, loss_normalization="micro_batch", **changes)
        run_stage(config, out=tmp_path / name, progress=Callback())
        return [line["loss"] for line in read_log(tmp_path / name / "train_log.jsonl")]

    first = losses("first", reproduce="original")
    assert first == losses("second", reproduce="original")
    assert first != losses("corrected")
