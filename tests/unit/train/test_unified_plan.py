"""The plan of a joint training: within 10 % of what is then alive, and the 7B by its sizes alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bettersynth.cli.main import main
from bettersynth.config.train import stage_config
from bettersynth.core.errors import BetterSynthError
from bettersynth.train import memory
from bettersynth.train.callbacks import Callback
from bettersynth.train.machines import GIB
from bettersynth.train.plan import plan_shapes, plan_stage
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

SMALL = """
family: bagel
llm: {vocab_size: 64, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
vit: {hidden_size: 16, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2, image_size: 32, patch_size: 8}
vae: {ch: 32, ch_mult: [1, 1], num_res_blocks: 1, z_channels: 4}
glue: {max_latent_size: 6, vit_max_num_patch_per_side: 4}
"""  # noqa: E501


@pytest.mark.parametrize(
    "changes",
    [
        {"unified": {"dropout_text": 0, "dropout_vit": 0, "dropout_vae": 0}},
        {"precision": "bf16", "gradient_checkpointing": True, "unified": {"ema_decay": 0.9, "ema_device": "model"}},
        {"lora": {"rank": 4}, "unified": {"pack_tokens": 200, "ema_decay": 0.9, "freeze": ["vit"]}},
    ],
    ids=["plain", "average", "low rank, packs"],
)
def test_plan_is_within_a_tenth_of_what_is_alive(
    unified_kit: ModuleType, unified_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = stage_config(unified_kit.settings(unified_folder, track_memory=True, epochs=1, **changes))
    plan = plan_stage(config)
    run = run_stage(config, out=tmp_path / "run", progress=Callback()).run
    assert run["peak_tensor_bytes"] == pytest.approx(plan.peak_bytes, rel=0.10)
    assert sum(plan.memory_bytes.values()) == plan.peak_bytes
    for part in (memory.TRAINED, memory.FROZEN, memory.OPTIMIZER, memory.AVERAGE):
        assert run["peak_tensor_parts"][part] == plan.memory_bytes[part], part
    assert run["flops"] == pytest.approx(plan.flops, rel=0.25)
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert written < plan.disk_bytes


def test_plan_by_sizes_needs_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    words = ["train", "--preset", "bagel_7b", "--plan", "--shapes", str(tmp_path / "small.yaml"), "--json"]
    assert main([*words, "--set", "joint.max_samples=100", "--plan-tokens", "80"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["tokens"] == 3 * 100 * 80 and plan["steps"] == 38
    assert plan["memory_bytes"]["trained_weights"] == 4 * plan["trainable_parameters"]
    assert main(words) == 2
    assert "hint: --set joint.max_samples=10000" in capsys.readouterr().err
    assert main([*words[:-1], "--set", "joint.max_samples=100"]) == 0
    assert "H200" in capsys.readouterr().out


def test_mistakes_of_sizes_are_listed_together(tmp_path: Path) -> None:
    config = stage_settings(load_preset("bagel_7b"), 2, {"data": "-", "init_from": "-", "max_samples": 10})
    with pytest.raises(BetterSynthError, match="unknown model preset"):
        plan_shapes(config, "bagel_8b")
    (tmp_path / "bad.yaml").write_text("family: bagel\nlm: {}\nllm: {hiden_size: 3}\n")
    with pytest.raises(BetterSynthError) as caught:
        plan_shapes(config, str(tmp_path / "bad.yaml"))
    assert "did you mean 'llm'" in str(caught.value) and "did you mean 'hidden_size'" in str(caught.value)


@pytest.mark.slow
def test_the_real_sizes_by_shapes_alone() -> None:
    """14.6 billion numbers: none of the cards holds a full fine-tuning; low-rank additions fit 80 GB."""
    places = {"data": "-", "init_from": "-", "max_samples": 1000}
    full = plan_shapes(stage_settings(load_preset("bagel_7b"), 2, places), "bagel_7b")
    assert full.trainable_parameters == pytest.approx(14_575_115_648, rel=0.001)
    assert not any(card.fits for card in full.cards)
    low = plan_shapes(stage_settings(load_preset("bagel_7b"), 2, {**places, "lora": {"rank": 64}}), "bagel_7b")
    assert next(card for card in low.cards if card.name == "H100").fits and low.peak_bytes < 70 * GIB
