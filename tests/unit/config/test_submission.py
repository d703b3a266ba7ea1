"""The submission document and the tracks' packing rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettersynth.config.submission import load_submission, packable_rules, track_rules
from bettersynth.core.errors import BetterSynthError, RuleError


def test_a_document_is_read_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "submission.yaml"
    path.write_text("track: online\nexclude: ['notes/*']\n")
    assert load_submission(path).exclude == ("notes/*",)
    path.write_text("track: offline\ntrak: x\n")
    with pytest.raises(BetterSynthError) as caught:
        load_submission(path)
    assert "trak" in caught.value.render() and "track" in caught.value.render()


def test_rules_of_the_tracks() -> None:
    assert track_rules("online").max_samples == 200_000
    assert track_rules("final").max_samples == 5_000 and track_rules("final").needs_weights
    assert track_rules("10k").seed_file == "input/pretrain_stage_1_10k/mgm_pretrain_stage_1_10k.jsonl"
    assert track_rules("demo").instruct_file.endswith("finetuning_stage_1_demo/mgm_instruction_stage_1_demo.json")
    with pytest.raises(RuleError):
        packable_rules("open")
