"""DeepSpeed files as settings of the one trainer: the kit's files, "auto", contradictions, what is left aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError
from bettersynth.kit import build as kit_build
from bettersynth.train.callbacks import Callback
from bettersynth.train.deepspeed import with_deepspeed
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]


@pytest.fixture
def read(configure: Configure, tmp_path: Path) -> Callable[..., tuple[StageConfig, tuple[str, ...]]]:
    """The settings that a file stands for, in a stage of 4 x 2 samples a step."""

    def carry_out(data: Any, **changes: Any) -> tuple[StageConfig, tuple[str, ...]]:
        path = tmp_path / "zero.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return with_deepspeed(configure(deepspeed=str(path), **changes).with_devices(1))

    return carry_out


@pytest.mark.parametrize(
    ("name", "sharding", "is_offloaded"),
    [("zero2.json", "grad_op", False), ("zero2_offload.json", "grad_op", True), ("zero3.json", "full", False)],
)
def test_the_kits_files(read: Any, tmp_path: Path, name: str, sharding: str, is_offloaded: bool) -> None:
    config, notes = read(kit_file(tmp_path, name), precision="bf16")
    assert (config.sharding, config.offload_optimizer, config.deepspeed) == (sharding, is_offloaded, None)
    assert len(notes) == 1 and "overlap_comm, contiguous_gradients, reduce_bucket_size" in notes[0]


def kit_file(folder: Path, name: str) -> str:
    kit_build.init(folder / "kit", track="10k")
    return (folder / "kit" / "toolkit" / "training" / "scripts" / name).read_text()


@pytest.mark.parametrize(
    ("zero", "wanted"),
    [
        ({}, ("off", False)),
        ({"stage": 0}, ("off", False)),
        ({"stage": 1}, ("grad_op", False)),
        ({"stage": 2, "offload_param": {"device": "cpu"}}, ("grad_op", False)),
        ({"stage": 3, "offload_param": {"device": "cpu"}}, ("full", True)),
        ({"stage": 3, "offload_optimizer": {"device": "none"}}, ("full", False)),
        ({"stage": 0, "offload_optimizer": {"device": "cpu", "pin_memory": True}}, ("off", True)),
    ],
)
def test_stages_and_offloading(read: Any, zero: dict[str, Any], wanted: tuple[str, bool]) -> None:
    config, notes = read({"zero_optimization": zero})
    assert (config.sharding, config.offload_optimizer) == wanted
    assert any("stage 3 only" in note for note in notes) == (zero.get("stage") == 2)


def test_values_that_agree_are_taken(read: Any) -> None:
    read(
        {
            "train_micro_batch_size_per_gpu": 4,
            "gradient_accumulation_steps": 2,
            "train_batch_size": 8,
            "gradient_clipping": 1,
            "bf16": {"enabled": False},
            "fp16": {"enabled": "auto", "loss_scale": 0, "hysteresis": 2},
            "optimizer": {"type": "AdamW", "params": {"lr": 0.05, "betas": [0.9, 0.999], "eps": "auto"}},
            "scheduler": {"type": "WarmupCosineLR", "params": {"warmup_num_steps": "auto", "total_num_steps": "auto"}},
        }
    )


def test_contradictions_are_refused_all_at_once(read: Any) -> None:
    zero = {"stage": 4, "offload_optimizer": {"device": "nvme"}, "zero_quantized_weights": True}
    with pytest.raises(BetterSynthError) as caught:
        read(
            {
                "train_micro_batch_size_per_gpu": 2,
                "train_batch_size": 16,
                "gradient_clipping": 0.5,
                "bf16": {"enabled": True},
                "optimizer": {"type": "Lamb", "params": {"lr": 1}},
                "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 100}},
                "zero_optimization": zero,
                "compression_training": {},
                "stepz_per_print": 1,
            }
        )
    text = str(caught.value)
    for where in (
        *("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_clipping", "bf16.enabled", "optimizer.type"),
        *("optimizer.params.lr", "scheduler.type", "scheduler.params.warmup_num_steps", "zero_optimization.stage"),
        *("zero_optimization.offload_optimizer.device", "zero_optimization.zero_quantized_weights"),
        *("compression_training", "stepz_per_print"),
    ):
        assert f"where: {where}\n" in text + "\n", where
    assert "13 problems" in text and "did you mean 'steps_per_print'" in text


def test_settings_given_beside_the_file_must_agree(read: Any) -> None:
    with pytest.raises(BetterSynthError, match="sharding: full"):
        read({"zero_optimization": {"stage": 2}}, sharding="full")
    with pytest.raises(BetterSynthError, match="offload_optimizer: true"):
        read({"zero_optimization": {"stage": 2}}, offload_optimizer=True)
    with pytest.raises(BetterSynthError, match="not readable JSON"):
        read("[1]")


@pytest.mark.usefixtures("fake_family")
def test_a_run_says_what_it_left_aside_and_stays_the_same_run(configure: Configure, tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    path = tmp_path / "zero.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2, "overlap_comm": True}}))
    plain = run_stage(configure(), out=tmp_path / "plain", progress=Callback())
    found = run_stage(configure(deepspeed=str(path)), out=tmp_path / "run", progress=Notes())
    assert found.digest == plain.digest
    assert [note for note in notes if "overlap_comm" in note] == [f"{path}: nothing to do for overlap_comm"]
