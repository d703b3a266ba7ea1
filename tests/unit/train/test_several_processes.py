"""Two processes, weights whole in each or split between them: the losses and files of one process, exact resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigErrors
from bettersynth.models.family import load_family
from bettersynth.train import sharding
from bettersynth.train.callbacks import read_log

Run = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def cases(
    mgm_configure: Callable[..., StageConfig],
    mgm_data: Path,
    unified_kit: ModuleType,
    unified_folder: Path,
) -> dict[str, dict[str, Any]]:
    """Two steps of each stage and family. The last step has fewer passes than processes; stage 1 has a damaged picture
    that leaves a process with nothing to do in a pass; batches are of texts alone, pictures alone, and mixed."""
    damaged = mgm_data / "damaged.jpg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:1500])
    rows = json.loads((mgm_data / "data.json").read_text())
    rows[5]["image"] = damaged.name
    (mgm_data / "with_damaged.json").write_text(json.dumps(rows))
    common = {"epochs": 1, "samples_seen": 14, "warmup_ratio": 0.0, "device": "cpu", "save_steps": 9}

    def mgm(**changes: Any) -> dict[str, Any]:
        return mgm_configure(**common, **changes).model_dump(mode="json", exclude_unset=True)

    return {
        "stage_1": mgm(stage=1, data=str(mgm_data / "with_damaged.json"), per_device_batch_size=1, max_bad_ratio=0.1),
        "stage_2": mgm(per_device_batch_size=2, gradient_checkpointing=True),
        "joint": unified_kit.settings(
            unified_folder, **{**common, "per_device_batch_size": 2, "save_steps": 1}, unified={"ema_decay": 0.5}
        ),
    }


@pytest.fixture(scope="module")
def ran(cases: dict[str, dict[str, Any]], run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case in one process, in two, and in two with split weights: ``CASE/{one,off,full}``."""
    out = tmp_path_factory.mktemp("ran")

    def job(case: str, name: str, **changes: Any) -> dict[str, Any]:
        return {"settings": {**cases[case], **changes}, "out": str(out / case / name)}

    (alone,) = run([job(case, "one") for case in cases], 1)
    first, second = run([job(case, way, sharding=way) for case in cases for way in ("off", "full")], 2)
    assert first == second, "the processes end with different results"
    assert all("weights" in said for said in (*alone, *first)), (alone, first)
    return out


@pytest.mark.parametrize("way", ["off", "full"])
@pytest.mark.parametrize("case", ["stage_1", "stage_2", "joint"])
def test_two_processes_train_as_one(ran: Path, case: str, way: str) -> None:
    one, two = ran / case / "one", ran / case / way
    for key in ("loss", "grad_norm"):
        wanted = [line[key] for line in read_log(one / "train_log.jsonl")]
        assert [line[key] for line in read_log(two / "train_log.jsonl")] == pytest.approx(wanted, rel=2e-5), key
    facts, wanted = Artifact.load(two).facts, Artifact.load(one).facts
    for key in ("rows_trained", "rows_rejected", "samples_seen", "tokens", "target_tokens", "steps"):
        assert facts[key] == wanted[key], key
    assert set(Artifact.load(two).files) == set(Artifact.load(one).files)
    assert not Artifact.load(two).verify()


@pytest.mark.parametrize("name", ["ema.safetensors", "model.safetensors"])
def test_split_weights_and_averages_are_written_whole(ran: Path, name: str) -> None:
    from safetensors.torch import load_file

    wanted, found = (load_file(ran / "joint" / way / name) for way in ("one", "full"))
    assert list(wanted) == list(found)
    for key, tensor in wanted.items():
        assert torch.allclose(found[key], tensor, atol=1e-5), key


def test_a_split_training_continues_exactly_and_in_another_number_of_processes(
    cases: dict[str, dict[str, Any]], ran: Path, run: Run, tmp_path: Path
) -> None:
    split = {**cases["joint"], "sharding": "full"}
    cut, alone = tmp_path / "cut", tmp_path / "alone"
    assert run([{"settings": split, "out": str(cut), "kill_at": 2}], 2)[0] == -9
    state = cut / "checkpoint-1"
    assert len(list((state / "shards").glob("*.distcp"))) == 2
    shutil.copytree(cut, alone)
    said, _ = run([{"settings": split, "out": str(cut)}], 2)
    assert said[0]["weights"] == Artifact.load(ran / "joint" / "full").facts["weights_digest"]
    assert (cut / "ema.safetensors").read_bytes() == (ran / "joint" / "full" / "ema.safetensors").read_bytes()
    run([{"settings": cases["joint"], "out": str(alone)}], 1)
    wanted = [line["loss"] for line in read_log(ran / "joint" / "one" / "train_log.jsonl")]
    assert [line["loss"] for line in read_log(alone / "train_log.jsonl")] == pytest.approx(wanted, rel=2e-5)


def test_what_cannot_be_split_is_refused_all_at_once(cases: dict[str, dict[str, Any]]) -> None:
    config = stage_config(
        {
            **cases["joint"],
            "sharding": "full",
            "optimizer": "adamw_8bit",
            "offload_optimizer": True,
            "precision": "fp16",
            "track_memory": True,
            "techniques": {"ema": {}, "neftune": {}},
            "val_data": "v.jsonl",
            "unified": {"freeze": ["und"]},
        }
    )
    found = ConfigErrors(sharding.problems(config, load_family("bagel"))).render()
    for key in (
        "optimizer",
        "offload_optimizer",
        "track_memory",
        "techniques.ema",
        "val_data",
        "unified.freeze",
    ):
        assert f"where: {key}\n" in found
    assert "neftune" not in found
