"""The trainer with the real model family and tiny random bases: two stages, resume, plan, loss mask."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import ConfigError, RuleError
from bettersynth.formats.llava import to_conversation
from bettersynth.models.family import load_family
from bettersynth.train.bases import load_start
from bettersynth.train.callbacks import Callback, StepView, read_log
from bettersynth.train.inspect import loss_mask, render_mask
from bettersynth.train.plan import plan_stage
from bettersynth.train.prepare import build_processor
from bettersynth.train.preset import Preset
from bettersynth.train.stages import TwoStageInputs, run_stage, run_two_stages

ZOO = Path(__file__).parents[2] / "golden" / "data" / "mgm_a" / "model_zoo"
QUIET = Callback()
COMMON = {"per_device_batch_size": 8, "image_size_aux": 128, "max_length": 160, "save_steps": 3, "seed": 5}
TINY = Preset(
    name="tiny",
    track="demo",
    locked=True,
    editable=("seed",),
    pretrain={"lr": 0.02, "image_aspect_ratio": "square", "samples_seen": 64, **COMMON},
    finetune={"lr": 0.002, "image_aspect_ratio": "pad", "group_by_modality_length": True, "epochs": 2, **COMMON},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 rows about plain colours, one in four without a picture."""
    folder = tmp_path_factory.mktemp("mgm_train")
    rng = random.Random(1)
    rows = []
    colours = {"red": (220, 30, 30), "green": (20, 200, 40), "blue": (30, 40, 230)}
    for number in range(32):
        name = rng.choice(sorted(colours))
        image = f"{number}.png" if number % 4 else None
        if image:
            Image.fromarray(np.full((20, 30, 3), colours[name], dtype=np.uint8)).save(folder / image)
        question = ("<image>\n" if image else f"say {name}, ") + "what colour is it?"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"it is {name}"}]
        rows.append({"id": str(number), **({"image": image} if image else {}), "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder


def config_for(data: Path, stage: int, **changes: Any) -> StageConfig:
    places = {"data": data / "data.json", "model_zoo": ZOO, "stage": stage}
    return stage_config({**TINY.settings(stage), **places, **changes})


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of both stages."""
    out = tmp_path_factory.mktemp("mgm_out")
    inputs = TwoStageInputs(data / "data.json", ZOO, pretrain_data=data / "data.json")
    first, second = run_two_stages(TINY, inputs, out=out, name="x", progress=QUIET)
    assert first is not None
    assert second.parents["adapter"] == first.digest
    return out / "training_dirs"


def test_two_stages_write_the_kits_folders(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["MGM-2B-Finetune-x", "MGM-2B-Pretrain-x"]
    first = {path.name for path in (trained / "MGM-2B-Pretrain-x").iterdir()}
    assert {"config.json", "mm_projector.bin", "pretrain.log", "train_log.jsonl", "manifest.json"} <= first
    second = {path.name for path in (trained / "MGM-2B-Finetune-x").iterdir()}
    assert {"config.json", "tokenizer.json", "finetune.log", "finetuning.log", "manifest.json"} <= second
    assert any(name.startswith("model-") and name.endswith(".safetensors") for name in second)


def test_losses_fall_in_both_stages(trained: Path) -> None:
    for name in ("Pretrain", "Finetune"):
        losses = [line["loss"] for line in read_log(trained / f"MGM-2B-{name}-x" / "train_log.jsonl")]
        assert len(losses) == 8
        assert losses[-1] < losses[0] - 0.2


def test_the_checkpoint_holds_the_trained_weights(trained: Path, data: Path) -> None:
    family = load_family("mgm")
    start = load_start(config_for(data, 2), family)
    saved = family.load_checkpoint(trained / "MGM-2B-Finetune-x", dtype=torch.float32, model_zoo=ZOO)
    before, after = dict(start.named_parameters()), dict(saved.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    wanted = {name for name, _ in family.trainable(start, 2)}
    assert moved
    assert moved <= wanted


def test_running_again_does_nothing(trained: Path, data: Path) -> None:
    log = trained / "MGM-2B-Finetune-x" / "train_log.jsonl"
    before = log.stat().st_mtime_ns
    inputs = TwoStageInputs(data / "data.json", ZOO, pretrain_data=data / "data.json")
    run_two_stages(TINY, inputs, out=trained.parent, name="x", progress=QUIET)
    assert log.stat().st_mtime_ns == before


@pytest.mark.parametrize("stage", [1, 2])
def test_crash_and_rerun_gives_the_same_checkpoint(trained: Path, data: Path, tmp_path: Path, stage: int) -> None:
    class Crash(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == 5:
                raise ZeroDivisionError

    changes = {"adapter": trained / "MGM-2B-Pretrain-x"} if stage == 2 else {}
    whole = trained / ("MGM-2B-Pretrain-x" if stage == 1 else "MGM-2B-Finetune-x")
    config = config_for(data, stage, **changes)
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "run", progress=QUIET, callbacks=[Crash()])
    resumed = run_stage(config, out=tmp_path / "run", progress=QUIET)
    expected = json.loads((whole / "manifest.json").read_text())
    assert resumed.facts["weights_digest"] == expected["facts"]["weights_digest"]
    found = [line["loss"] for line in read_log(tmp_path / "run" / "train_log.jsonl")]
    assert found == [line["loss"] for line in read_log(whole / "train_log.jsonl")]


def test_checkpointing_gradients_changes_no_loss(trained: Path, data: Path, tmp_path: Path) -> None:
    config = config_for(data, 2, adapter=trained / "MGM-2B-Pretrain-x", gradient_checkpointing=True)
    run_stage(config, out=tmp_path / "run", progress=QUIET)
    found = [line["loss"] for line in read_log(tmp_path / "run" / "train_log.jsonl")]
    expected = [line["loss"] for line in read_log(trained / "MGM-2B-Finetune-x" / "train_log.jsonl")]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_follow_full_precision(trained: Path, data: Path, tmp_path: Path, precision: str) -> None:
    run_stage(config_for(data, 1, precision=precision), out=tmp_path / "run", progress=QUIET)
    found = [line["loss"] for line in read_log(tmp_path / "run" / "train_log.jsonl")]
    expected = [line["loss"] for line in read_log(trained / "MGM-2B-Pretrain-x" / "train_log.jsonl")]
    assert found == pytest.approx(expected, rel=0.03)


def test_locked_track_refuses_before_anything_runs(data: Path, tmp_path: Path) -> None:
    inputs = TwoStageInputs(data / "data.json", ZOO, pretrain_data=data / "data.json")
    with pytest.raises(RuleError):
        run_two_stages(TINY, inputs, out=tmp_path / "out", name="x", overrides={"finetune": {"lr": 1.0}})
    with pytest.raises(ConfigError, match="unknown stage"):
        run_two_stages(TINY, inputs, out=tmp_path / "out", name="x", overrides={"stage2": {}})
    assert not (tmp_path / "out").exists()


def test_plan_says_what_will_happen_and_touches_nothing(trained: Path, data: Path, tmp_path: Path) -> None:
    config = config_for(data, 1)
    plan = plan_stage(config, out=tmp_path / "new")
    assert not list(tmp_path.iterdir())
    assert (plan.status, plan.rows, plan.samples, plan.steps, plan.global_batch) == ("to do", 32, 64, 8, 8)
    facts = json.loads((trained / "MGM-2B-Pretrain-x" / "manifest.json").read_text())["facts"]
    assert plan.tokens == facts["tokens"]
    model = load_start(config, load_family("mgm"))
    sizes = {name: p.numel() for name, p in load_family("mgm").trainable(model, 1)}
    assert plan.trainable_parameters == sum(sizes.values())
    assert plan.memory_bytes["optimizer"] == pytest.approx(8 * sum(sizes.values()), rel=0.01)
    done = plan_stage(config, out=trained / "MGM-2B-Pretrain-x")
    assert (done.status, done.done_steps) == ("done", 8)
    waiting = plan_stage(config_for(data, 2, adapter=tmp_path / "later"), out=tmp_path / "new")
    assert waiting.status == "to do"
    assert "stage 1 writes it" in waiting.notes[-1]


def test_loss_mask_shows_the_targets(data: Path) -> None:
    config = config_for(data, 2)
    family = load_family("mgm")
    processor = build_processor(config, family, load_start(config, family))
    rows = json.loads((data / "data.json").read_text())
    mask = loss_mask(to_conversation(rows[1]), processor)
    answer = rows[1]["conversations"][1]["value"]
    assert [piece for piece, is_target in mask.pieces if is_target] == [f"{answer}<end_of_turn>\n<eos>"]
    assert mask.pieces[1] == ("<image>", False) or "<image>" in [piece for piece, _ in mask.pieces]
    assert mask.num_image_tokens == 16
    assert 0 < mask.num_targets < mask.num_tokens - 16
    assert f"[[{answer}" in render_mask(mask, is_coloured=False)
    refused = loss_mask(to_conversation({**rows[1], "conversations": rows[1]["conversations"][:1]}), processor)
    assert refused.rejected is not None
    assert "ends_with_human" in render_mask(refused, is_coloured=True)


@pytest.mark.parametrize("stage", [1, 2])
def test_packing_changes_losses_by_rounding_only(trained: Path, data: Path, tmp_path: Path, stage: int) -> None:
    changes = {"adapter": trained / "MGM-2B-Pretrain-x"} if stage == 2 else {}
    run_stage(config_for(data, stage, packing=True, **changes), out=tmp_path / "run", progress=QUIET)
    whole = trained / ("MGM-2B-Pretrain-x" if stage == 1 else "MGM-2B-Finetune-x")
    found, expected = (
        [line["loss"] for line in read_log(folder / "train_log.jsonl")] for folder in (tmp_path / "run", whole)
    )
    assert found == pytest.approx(expected, rel=1e-4)
