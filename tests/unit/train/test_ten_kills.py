"""SIGKILL at ten random moments over both stages, in one process and in two: the bits of an undisturbed training."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import Artifact
from bettersynth.train.callbacks import read_log

KILLS = 10
WAYS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "one": (1, {}, {}),
    "two": (2, {}, {}),
    "split": (2, {"sharding": "full"}, {"sharding": "full"}),
    "lora_and_average": (2, {}, {"lora": {"rank": 4, "dropout": 0.1}, "techniques": {"ema": {"decay": 0.9}}}),
    "offloaded": (2, {}, {"sharding": "grad_op", "offload_optimizer": True, "gradient_checkpointing": True}),
}


@pytest.fixture
def jobs(mgm_configure: Callable[..., StageConfig]) -> Callable[..., list[dict[str, Any]]]:
    """Both stages, 24 and 36 steps of four passes, a state after every third step."""

    def build(out: Path, first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
        common = {"device": "cpu", "per_device_batch_size": 2, "save_steps": 3, "lr": 0.003}
        stages = [
            mgm_configure(stage=1, **{**common, "epochs": 8}, **first),
            mgm_configure(adapter=str(out / "1"), **{**common, "epochs": 12}, group_by_modality_length=True, **second),
        ]
        return [
            {"settings": stage.model_dump(mode="json", exclude_unset=True), "out": str(out / str(stage.stage))}
            for stage in stages
        ]

    return build


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_ten_kills_change_no_bit(run: Callable[..., list[Any]], jobs: Any, tmp_path: Path, way: str) -> None:
    processes, first, second = WAYS[way]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    said = run(jobs(whole, first, second), processes)
    passes = sum(Artifact.load(whole / str(stage)).facts["steps"] for stage in (1, 2)) * 4 // processes
    rng = random.Random(way)
    killed_at = []
    for _ in range(KILLS):
        kill = (round(rng.uniform(0.04, 0.16) * passes), rng.uniform(0, 0.1))
        codes = run(jobs(cut, first, second), processes, kill=kill)
        assert codes[0] == -9, "the training ended before it could be killed ten times"
        logs = [read_log(cut / str(stage) / "train_log.jsonl") for stage in (1, 2)]
        killed_at.append([log[-1]["step"] if log else 0 for log in logs])
    print(f"{way}: killed after steps (stage 1, stage 2): {killed_at}")
    assert len({stage_2 > 0 for _, stage_2 in killed_at}) == 2, f"kills in one stage only: {killed_at}"
    assert run(jobs(cut, first, second), processes) == said
    for stage in ("1", "2"):
        wanted, found = (Artifact.load(folder / stage) for folder in (whole, cut))
        assert found.facts["weights_digest"] == wanted.facts["weights_digest"]
        assert found.digest == wanted.digest
        losses = [[line["loss"] for line in read_log(folder / stage / "train_log.jsonl")] for folder in (whole, cut)]
        assert losses[0] == losses[1]
        assert json.loads((cut / stage / "manifest.json").read_text())["run"]["processes"] == processes
