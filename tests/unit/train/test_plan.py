"""The plan before launch: within 10 % of what is then alive, however memory is saved; and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bettersynth.cli.main import main
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import ConfigError
from bettersynth.train import memory
from bettersynth.train.callbacks import Callback
from bettersynth.train.machines import GIB, HOST_BASE_BYTES, on_cards
from bettersynth.train.plan import plan_shapes, plan_stage
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]
TOLERANCE = 0.10


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": 1},
        {"precision": "bf16", "gradient_checkpointing": True, "epochs": 4},
        {"lora": {"rank": 16}, "packing": True},
        {"precision": "bf16", "samples_seen": 8},  # one step: it makes the optimiser's states after its last pass
        {"offload_optimizer": True, "samples_seen": 1, "per_device_batch_size": 1, "global_batch": 1},
    ],
    ids=str,
)
def test_plan_is_within_a_tenth_of_what_is_alive(
    mgm_configure: Configure, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = mgm_configure(track_memory=True, **changes)
    plan = plan_stage(config)
    run = run_stage(config, out=tmp_path / "run", progress=Callback()).run
    assert run["peak_tensor_bytes"] == pytest.approx(plan.peak_bytes, rel=TOLERANCE)
    assert run["flops"] == pytest.approx(plan.flops, rel=0.2)  # towers dominate here: it matters who has a picture
    assert run["peak_rss_bytes"] > run["peak_tensor_bytes"]  # beside it: the interpreter and the libraries
    assert sum(plan.memory_bytes.values()) == plan.peak_bytes
    for part in (memory.TRAINED, memory.FROZEN, memory.OPTIMIZER):
        assert run["peak_tensor_parts"][part] == plan.memory_bytes[part], part
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert written < plan.disk_bytes


def test_a_first_step_that_is_larger_than_all_later_ones_is_planned_without_states(
    mgm_configure: Configure, mgm_data: Path, tmp_path: Path
) -> None:
    rows = json.loads((mgm_data / "data.json").read_text())
    rows[0]["conversations"][1]["value"] = "it is red and " * 30 + "red"
    (tmp_path / "data.json").write_text(json.dumps(rows))
    settings = {"data": str(tmp_path / "data.json"), "image_root": str(mgm_data), "max_length": 200, "seed": 2}
    config = mgm_configure(track_memory=True, samples_seen=24, per_device_batch_size=2, **settings)
    plan = plan_stage(config)
    run = run_stage(config, out=tmp_path / "run", progress=Callback()).run
    assert run["peak_tensor_parts"][memory.OPTIMIZER] == plan.memory_bytes[memory.OPTIMIZER] == 0  # in its first step
    assert run["peak_tensor_bytes"] == pytest.approx(plan.peak_bytes, rel=TOLERANCE)


def test_tracker_counts_what_is_alive_once_and_forgets_what_is_gone() -> None:
    with memory.LiveBytes("cpu", logits_width=7) as tracker:
        one = torch.zeros(1000)
        view = one[:10] + 0  # 10 new numbers; the slice itself has none of its own
        assert sum(tracker.live.values()) == 4000 + 40
        tracker.assign([one], memory.FROZEN)
        scores = torch.ones(5, 7)
        assert dict(tracker.live) == {memory.FROZEN: 4000, memory.ACTIVATIONS: 40, memory.LOGITS: 140}
        del one, scores, view
        assert sum(tracker.live.values()) == 0
    assert tracker.peak_bytes == 4180
    assert tracker.peak[memory.LOGITS] == 140


def test_tracker_sees_gradients_states_and_products() -> None:
    layer = nn.Linear(8, 4, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters(), foreach=False)
    named = [("weight", layer.weight)]
    training = SimpleNamespace(model=layer, trained=named, parameters=named, optimizer=optimizer)
    with memory.measured(training, is_tracked=True) as facts:
        layer(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    assert facts["flops"] == 2 * (2 * 2 * 8 * 4)  # one product forward and one backward: inputs need no gradient
    assert facts["peak_tensor_parts"][memory.GRADIENTS] == 4 * 32
    with memory.measured(training, is_tracked=False) as facts:
        pass
    assert facts == {}


def test_host_memory_does_not_count_for_the_device() -> None:
    with memory.LiveBytes("cpu") as tracker:
        kept = torch.zeros(1000)
        tracker.assign([kept], memory.HOST)
        torch.zeros(10)
    assert tracker.host_bytes == 4000
    assert tracker.peak_bytes == 4000  # the moment before it was said to be the host's
    tracker = memory.LiveBytes("cpu")
    tracker.assign([kept], memory.HOST)
    assert tracker.live[memory.HOST] == 4000


@pytest.mark.parametrize("is_failing", [False, True])
def test_states_that_an_update_of_the_host_makes_were_never_on_the_device(
    is_failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.Linear(100, 10, bias=False)
    master = nn.Parameter(layer.weight.detach().clone())
    master.grad = torch.ones_like(master)
    optimizer = torch.optim.AdamW([master], foreach=False)
    if is_failing:
        monkeypatch.setattr(torch.optim.AdamW, "_init_group", lambda *_: 1 / 0)
    training = SimpleNamespace(
        model=layer, trained=[("weight", layer.weight)], parameters=[("weight", master)], optimizer=optimizer
    )
    tracker = memory.LiveBytes("cpu")
    with tracker, memory.attributed(tracker, training):
        if is_failing:
            with pytest.raises(ZeroDivisionError):
                optimizer.step()
        else:
            optimizer.step()
            assert tracker.peak_bytes < 4 * 1000 * 1.1  # the weight on the device
            assert tracker.host_bytes >= 3 * 4 * 1000  # its master and two averages; the gradient was made before
    with memory.LiveBytes("cpu") as after:
        kept = torch.zeros(10)
    assert after.live[memory.ACTIVATIONS] == kept.nbytes  # what comes after the update is the device's again


def test_cards_fit_with_room_to_spare_and_share_the_hours() -> None:
    cards = {card.name: card for card in on_cards(int(22.5 * GIB), 1e18)}
    assert not cards["RTX 4090"].fits  # 24 GB are 22.35 GiB
    assert cards["L40S"].fits
    halved = {card.name: card for card in on_cards(1, 1e18, devices=2)}
    assert halved["H100"].hours == pytest.approx(cards["H100"].hours / 2, abs=0.02)
    assert on_cards(1, 0.0, moved_bytes=12e9 * 3600)[0].hours == 1.0


def test_plan_by_sizes_needs_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "pretrain.max_length=256", "--set", "finetune.max_length=256", "--set", "finetune.lora=true"]
    words = ["train", "--preset", "solution", "--plan", "--shapes", "mgm_tiny", "--plan-tokens", "100", "--json"]
    rows = ["--set", "pretrain.max_samples=1000", "--set", "finetune.max_samples=640"]
    assert main([*words, *settings, *rows]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["steps"], second["steps"]) == (24, 20)
    assert second["tokens"] == 2 * 640 * 100
    assert second["trainable_parameters"] > first["trainable_parameters"]
    assert main([*words[:-1], *settings, *rows]) == 0
    shown = capsys.readouterr().out
    assert "device, all at the peak" in shown
    assert "RTX 4090" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 9}, "no sample can be that long"),
        ({"tokens": 99_999}, "no sample can be that long"),
        ({"sizes": "mgm_3b"}, "unknown model preset"),
    ],
)
def test_impossible_plans_by_sizes(changes: dict[str, Any], message: str) -> None:
    config = stage_settings(load_preset("10k"), 2, {"data": "-", "model_zoo": "-"})
    with pytest.raises(ConfigError, match=message):
        plan_shapes(config, **{"sizes": "mgm_tiny", **changes})


def test_shapes_without_plan_or_amount_are_refused(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "10k", "--shapes", "mgm_tiny"]) == 2
    assert "--plan" in capsys.readouterr().err
    config = stage_settings(load_preset("solution"), 2, {"data": "-", "model_zoo": "-"})
    with pytest.raises(ConfigError, match="how many samples"):
        plan_shapes(config, "mgm_tiny")


@pytest.mark.slow
def test_the_real_sizes_by_shapes_alone() -> None:
    """MGM-2B: 2.5 billion trained numbers at 16 bytes each before anything is computed."""
    config = stage_settings(load_preset("10k"), 2, {"data": "-", "model_zoo": "-"})
    plan = plan_shapes(config, "mgm_2b")
    assert plan.trainable_parameters == 2_519_431_424
    assert plan.memory_bytes["trained_weights"] == 4 * plan.trainable_parameters
    assert plan.memory_bytes["optimizer"] == pytest.approx(8 * plan.trainable_parameters, rel=1e-6)
    assert 40 * GIB < plan.peak_bytes < 50 * GIB
    assert not next(card for card in plan.cards if card.name == "RTX 4090").fits


def test_split_weights_are_shared_and_offloaded_in_the_plan() -> None:
    """Exact where sizes decide; a note says that the rest is reckoned."""

    def parts(**changes: Any) -> tuple[dict[str, int], Any]:
        given = {"data": Path("-"), "model_zoo": Path("-"), **changes}
        plan = plan_shapes(stage_settings(load_preset("10k"), 2, given), "mgm_tiny", num_devices=4)
        return dict(plan.memory_bytes), plan

    (whole, one), (full, split), (kept, _) = parts(), parts(sharding="full"), parts(sharding="grad_op")
    for part in (memory.TRAINED, memory.OPTIMIZER):
        assert full[part] == kept[part] == pytest.approx(whole[part] / 4, rel=0.01)
    assert full["gathered_weights"] <= kept["gathered_weights"] == 2 * one.trainable_parameters
    assert full[memory.FROZEN] == whole[memory.FROZEN]  # the towers
    assert sum(full.values()) == split.peak_bytes < one.peak_bytes
    assert any("reckoned" in note for note in split.notes) and not any("reckoned" in note for note in one.notes)
    offloaded, plan = parts(sharding="full", offload_optimizer=True, pixel_cache_bytes=0)
    assert offloaded[memory.TRAINED] == offloaded[memory.OPTIMIZER] == 0
    process = HOST_BASE_BYTES + 4 * (16 * 96 * 96 * 3)  # interpreter, and four batches of pictures made ahead
    assert plan.host_bytes == 4 * process + 16 * one.trainable_parameters
    assert plan.disk_bytes == one.disk_bytes
