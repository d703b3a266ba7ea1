"""The model benchmarks on a handful of samples: what they say about answers and losses is checked, not about speed."""

from __future__ import annotations

from pathlib import Path

from benchmarks.models import evaluation, training


def test_batched_answers_have_the_ids_of_a_plain_loop(tmp_path: Path) -> None:
    facts = evaluation(tmp_path, 12)
    assert facts["same_ids"] is True
    assert facts["questions"] == 12


def test_the_cache_changes_no_bit_and_packing_only_rounding(tmp_path: Path) -> None:
    facts = training(tmp_path, 12)
    for stage in (1, 2):
        plain, cold, warm, packed = (
            facts[f"stage {stage}, {name}"] for name in ("padded", "cache cold", "cache warm", "packed")
        )
        assert plain["weights_digest"] == cold["weights_digest"] == warm["weights_digest"]
        assert packed["largest_loss_difference"] < 1e-3
