"""The tracks: their fixed numbers, what is refused, what stays free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.errors import BetterSynthError, ConfigError, RuleError
from bettersynth.train.preset import load_preset, preset_names, stage_settings

PLACES: dict[str, Any] = {"data": Path("d.json"), "model_zoo": Path("zoo")}


def test_all_tracks_load() -> None:
    assert {"10k", "demo", "final", "online", "solution"} <= set(preset_names())
    for name in preset_names():
        preset = load_preset(name)
        for stage in (1, 2):
            config = stage_settings(preset, stage, PLACES).with_devices(1)
            assert config.global_batch == config.per_device_batch_size * (config.gradient_accumulation_steps or 0)


@pytest.mark.parametrize(
    ("name", "first", "second"), [("online", 200_000, 240_000), ("final", 5_000, 6_000), ("10k", 10_000, 12_000)]
)
def test_locked_numbers_of_the_rules(name: str, first: int, second: int) -> None:
    preset = load_preset(name)
    one, two = stage_settings(preset, 1, PLACES), stage_settings(preset, 2, PLACES)
    assert (one.lr, one.global_batch, one.max_samples) == (1e-3, 256, first)
    assert (two.lr, two.global_batch, two.max_samples) == (2e-5, 128, second)
    assert (one.image_aspect_ratio, two.image_aspect_ratio) == ("square", "pad")
    assert (one.group_by_modality_length, two.group_by_modality_length) == (False, True)
    for config in (one, two):
        assert (config.epochs, config.scheduler, config.warmup_ratio) == (1, "cosine", 0.03)
        assert (config.weight_decay, config.precision, config.tf32) == (0.0, "bf16", True)
        assert (config.max_length, config.image_size_aux) == (2048, 768)
        assert config.loss_normalization == "micro_batch"
        assert config.with_devices(1).gradient_accumulation_steps in (64, 32)


def test_locked_track_lists_every_refused_change() -> None:
    changes = {"lr": 1e-4, "epochs": 2, "seed": 7, "init_from": Path("c"), "warmup_ratio": 0.03}
    with pytest.raises(RuleError) as caught:
        stage_settings(load_preset("online"), 1, {**PLACES, **changes})
    text = caught.value.render()
    assert caught.value.exit_code == 2
    assert len(caught.value.reasons) == 4
    assert "lr is 0.001 on this track and cannot be 0.0001" in text
    assert "init_from is fixed" in text
    assert "warmup_ratio" not in text


def test_editable_block_stays_free() -> None:
    changes = {
        "per_device_batch_size": 8,
        "gradient_accumulation_steps": 32,
        "workers": 2,
        "logging_steps": 5,
        "save_steps": 50,
        "save_total_limit": 2,
        "device": "cpu",
        "report_to": ("jsonl", "tensorboard"),
    }
    config = stage_settings(load_preset("online"), 1, {**PLACES, **changes}).with_devices(1)
    assert config.global_batch == 256
    with pytest.raises(ConfigError, match="is not the track's global batch"):
        stage_settings(load_preset("online"), 1, {**PLACES, "gradient_accumulation_steps": 3}).with_devices(1)


def test_final_continues_from_a_checkpoint_and_demo_from_a_seed() -> None:
    config = stage_settings(load_preset("final"), 1, {**PLACES, "init_from": Path("online")})
    assert config.init_from == Path("online")
    assert stage_settings(load_preset("demo"), 2, {**PLACES, "seed": 5}).seed == 5
    with pytest.raises(RuleError):
        stage_settings(load_preset("demo"), 1, {**PLACES, "samples_seen": 9000})


def test_open_track_takes_anything_valid() -> None:
    config = stage_settings(load_preset("solution"), 1, {**PLACES, "lr": 3e-4})
    assert (config.lr, config.epochs, config.global_batch) == (3e-4, 3, 128)


def test_samples_take_the_place_of_an_open_presets_epochs_and_not_of_a_locked_ones() -> None:
    config = stage_settings(load_preset("solution"), 2, {**PLACES, "samples_seen": 64})
    assert (config.samples_seen, config.epochs) == (64, 1)
    with pytest.raises(BetterSynthError, match="together"):
        stage_settings(load_preset("solution"), 2, {**PLACES, "samples_seen": 64, "epochs": 2})
    with pytest.raises(RuleError, match="samples_seen is None on this track"):
        stage_settings(load_preset("10k"), 2, {**PLACES, "samples_seen": 64})
    with pytest.raises(BetterSynthError, match="together"):
        stage_settings(load_preset("demo"), 2, {**PLACES, "epochs": 2})


def test_what_does_not_work_yet_is_refused() -> None:
    with pytest.raises(BetterSynthError, match="unknown key 'lora_r'"):
        stage_settings(load_preset("solution"), 2, {**PLACES, "lora_r": 64})


def test_unknown_names_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("onlin")
    assert caught.value.hint == "did you mean 'online'?"
    path = tmp_path / "mine.yaml"
    path.write_text("track: open\nlockd: true\npretrain: {}\nfinetune: {}\n")
    with pytest.raises(ConfigError, match="unknown key 'lockd'") as caught:
        load_preset(path)
    assert "mine.yaml:2" in str(caught.value.where)


def test_own_file_with_a_typo_in_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("pretrain:\n  lr: 1e-3\n  per_device_batch_size: 4\n  warmup: 0.1\nfinetune:\n  lr: 1e-5\n")
    with pytest.raises(BetterSynthError, match="unknown key 'warmup'"):
        load_preset(path)


def test_listing_presets_needs_no_torch() -> None:
    code = "import sys, bettersynth.train.preset as p; p.load_preset('demo'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
