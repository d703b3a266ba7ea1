"""The model benchmarks on a handful of samples: what they say about answers and losses is checked, not about speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from benchmarks import mgm_gpu, mgm_training
from benchmarks.models import evaluation, switches


def test_batched_answers_have_the_ids_of_the_originals_loop(tmp_path: Path) -> None:
    facts = evaluation(tmp_path, 12)
    assert facts["same_ids"] is True
    assert facts["questions"] == 12


def test_the_cache_changes_no_bit_and_packing_only_rounding(tmp_path: Path) -> None:
    facts = switches(tmp_path, 12)
    for stage in (1, 2):
        plain, cold, warm, packed = (
            facts[f"stage {stage}, {name}"] for name in ("padded", "cache cold", "cache warm", "packed")
        )
        assert plain["weights_digest"] == cold["weights_digest"] == warm["weights_digest"]
        assert packed["largest_loss_difference"] < 1e-3


def test_the_original_and_we_have_the_same_losses_and_we_need_less_memory(tmp_path: Path) -> None:
    size = replace(mgm_training.TINY, samples=32, tracked=16, rounds=1)
    threads = torch.get_num_threads()
    try:
        facts = mgm_training.measure(tmp_path, size, run=mgm_training.side)
    finally:
        torch.set_num_threads(threads)
    for stage in (1, 2):
        for name in mgm_training.OURS:
            row = facts[f"stage {stage}, {name}"]
            assert row["steps"] == 2
            assert row["largest_loss_difference"] < 1e-4
            assert row["share_of_memory"] < 0.75


def test_the_measurement_at_true_shapes_runs_on_any_device() -> None:
    facts = mgm_gpu.measure("mgm_tiny", micro_batches=(16,), steps=1, warm_up=0)
    assert facts["stage 1, micro-batch 16"]["accumulation"] == 16
    assert facts["stage 2, micro-batch 16"]["samples_per_s"] > 0
    assert facts["baseline_minutes"] > 0
    assert facts["pictures_per_core_s"] > 0
