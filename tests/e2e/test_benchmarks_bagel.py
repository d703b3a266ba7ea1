"""The BAGEL benchmarks on a handful of samples: that both sides compute the same is checked, not their speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.bagel import load
from benchmarks.bagel.__main__ import main
from benchmarks.bagel.infer import decoding, drawing
from benchmarks.bagel.train import training
from benchmarks.bagel.world import build

from bettersynth.models.bagel.convert import save_checkpoint


def test_pictures_and_texts_are_those_of_the_plain_way() -> None:
    facts = drawing("tiny", 3)
    for count in ("1 picture", "4 pictures"):
        assert facts[count]["largest_latent_difference"] < 1e-4
    facts = decoding("tiny", 5)
    assert facts["1 text"]["same_ids"] is facts["16 texts"]["same_ids"] is True


def test_losses_and_gradients_are_those_of_the_plain_way(tmp_path: Path) -> None:
    facts = training("tiny", tmp_path, 8)
    for name in ("largest_difference", "largest recomputing_difference"):
        assert facts["network alone"][name] < 1e-5
    for name in ("ours", "ours, recomputing"):  # the plain way pads pictures before encoding them: small, not zero
        assert facts[name]["largest_loss_difference"] < 0.05


def test_all_ways_of_loading_hold_the_same_weights(tmp_path: Path) -> None:
    save_checkpoint(build("tiny"), tmp_path, dtype=torch.bfloat16)
    plain, average = load.WAYS["plain, training"](tmp_path)
    ours = load.WAYS["ours, training"](tmp_path).state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, average.state_dict()[name]), name
        assert torch.allclose(tensor, ours[name], atol=1e-2), name  # tables are computed anew, not read in bf16


@pytest.mark.slow
def test_ours_needs_less_memory_to_load(tmp_path: Path) -> None:
    assert load.loading(tmp_path, 12)["ours, training"]["ratio"] < 0.7


def test_the_measurement_for_cards_runs_in_small(tmp_path: Path) -> None:
    assert main(["gpu", "--small", "--steps", "3", "--results", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "bagel-gpu-small.json").read_text())
    assert facts["draw"]["steps"] == 3
    assert facts["full"]["tokens_per_step"] > 200
