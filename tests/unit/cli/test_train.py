"""Stage 2 alone begins with the stage 1 of its name, and says with what it begins."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bettersynth.cli.train_start import check_start, choose_start, take_held_out
from bettersynth.core.artifact import write_manifest
from bettersynth.core.errors import ConfigError
from bettersynth.train.stages import stage_folder


@pytest.fixture
def args(tmp_path):
    return argparse.Namespace(out=tmp_path, name="mine")


def test_a_finished_stage_1_of_the_name_is_used(args, capsys):
    folder = stage_folder(args.out, 1, "mine")
    folder.mkdir(parents=True)
    write_manifest(folder, kind="checkpoint", facts={}, files=[], parents={}, run={})
    overrides = {}
    choose_start(args, overrides)
    assert overrides == {"finetune": {"adapter": str(folder)}}
    assert str(folder) in capsys.readouterr().err


def test_without_one_it_is_said(args, capsys):
    overrides = {}
    choose_start(args, overrides)
    assert overrides == {"finetune": {}} and "untrained projector" in capsys.readouterr().err


def test_an_unfinished_one_is_refused(args):
    stage_folder(args.out, 1, "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not finished"):
        choose_start(args, {})


def test_a_named_start_wins(args, capsys):
    stage_folder(args.out, 1, "mine").mkdir(parents=True)
    overrides = {"finetune": {"init_from": "elsewhere"}}
    choose_start(args, overrides)
    assert overrides == {"finetune": {"init_from": "elsewhere"}} and capsys.readouterr().err == ""


def test_stage_2_alone_says_which_first_stages_there_are(args):
    folder = stage_folder(args.out, 1, "other")
    folder.mkdir(parents=True)
    write_manifest(folder, kind="checkpoint", facts={}, files=[], parents={}, run={})
    with pytest.raises(ConfigError, match="no finished stage 1") as refused:
        check_start(args)
    assert refused.value.got == "other" and "--stage 1" in refused.value.hint


def test_held_out_records_belong_to_one_stage():
    given = {"val_data": Path("held_out.json"), "images": None, "pretrain_data": Path("a.json")}
    for stage, key in (("1", "pretrain"), ("2", "finetune")):
        overrides = {}
        take_held_out(argparse.Namespace(**given, stage=stage), overrides)
        assert overrides == {key: {"val_data": "held_out.json"}}
    with pytest.raises(ConfigError, match="--val-data needs --stage 1"):
        take_held_out(argparse.Namespace(**given, stage="both"), {})
    with pytest.raises(ConfigError, match="--images needs --data"):
        take_held_out(argparse.Namespace(**given | {"images": Path("pictures")}, stage="1"), {})


def test_every_missing_place_is_said_at_once(call, tmp_path):
    places = ("--pretrain-data", "a.json", "--finetune-data", "b.json", "--model-zoo", "zoo", "--out", tmp_path)
    done = call("train", "--preset", "demo", *places, expect=2)
    assert all(word in done.err for word in ("3 problems", "a.json", "b.json", "no model zoo here"))


def test_mistakes_of_flags_places_and_settings_are_said_together(call, tmp_path):
    places = ("--pretrain-data", "a.json", "--finetune-data", "b.json", "--model-zoo", "zoo", "--out", tmp_path)
    settings = ("--set", "finetune.lr=1", "--set", "pretrain.sead=7", "--set", "lr", "--set", "finetune.lora={rank: 1")
    held_out = ("--stage", "both", "--val-data", "missing.json")
    error = call("train", "--preset", "demo", *places, *settings, *held_out, expect=2).err
    said = ("9 problems", "a.json", "b.json", "no model zoo here", "missing.json", "--val-data needs --stage 1")
    assert all(word in error for word in (*said, "lr is 0.001", "did you mean 'seed'", "got: lr", "{rank: 1"))
    error = call("train", "--preset", "dema", "--finetune-data", "b.json", "--model-zoo", "zoo", expect=2).err
    assert error.count("unknown training preset") == 1 and "b.json" in error and "no model zoo here" in error
    error = call("train", "--set", "pretrain.seed", expect=2).err
    assert "needed: --preset" in error and "pretrain.seed" in error and "untrained projector" not in error


def test_mistakes_of_a_joint_training_are_said_together(call, tmp_path):
    words = ("--preset", "bagel_demo", "--data", "a.jsonl", "--val-data", "missing.jsonl", "--out", tmp_path)
    error = call("train", *words, "--set", "joint.sead=7", "--set", "finetune.lr=1", expect=2).err
    said = ("a.jsonl", "missing.jsonl", "needed: --init-from", "did you mean 'seed'", "got: finetune")
    assert all(word in error for word in ("5 problems", *said))


def test_mistakes_of_both_stages_are_said_at_once(tmp_path):
    from bettersynth.train.stages import TwoStageInputs, two_stage_configs

    inputs = TwoStageInputs(tmp_path / "b.json", tmp_path, pretrain_data=tmp_path / "a.json")
    overrides = {"finetune": {"lr": 1.0}, "pretrain": {"gradient_accumulation_steps": 3}}
    with pytest.raises(ConfigError) as refused:
        two_stage_configs("demo", inputs, out=tmp_path, name="x", overrides=overrides, devices={1: 1, 2: 1})
    assert "lr is" in refused.value.body() and "2 problems" in refused.value.body()


def test_json_is_one_document(call):
    done = call("train", "--check-batch", 8, 4, 8, "--json")
    assert done.data["global_batch"] == 256
