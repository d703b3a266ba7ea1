"""The training guide's script: its flags, its refusals, its folder and its import names."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bettersynth.cli.unified import build_parser, main
from bettersynth.core.errors import ConfigErrors
from bettersynth.core.lang import catalogue
from bettersynth.train.unified_flags import FLAGS, build_job, find_state

GUIDE = (
    *("model_path", "train_data_path", "val_data_path", "output_dir", "batch_size", "gradient_accumulation_steps"),
    *("num_epochs", "learning_rate", "wandb_project", "wandb_run_name", "fp16", "bf16", "resume_from_checkpoint"),
    *("text_loss_weight", "image_loss_weight", "lr_scheduler_type", "max_sequence_length", "num_workers"),
    *("save_steps", "save_total_limit", "gradient_checkpointing", "compile", "load_in"),
)


@pytest.fixture(scope="module")
def folder(unified_kit: ModuleType, unified_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the records."""
    path = tmp_path_factory.mktemp("guide")
    shutil.copytree(unified_folder / "model", path / "model")
    unified_kit.write_data(path, 12)
    unified_kit.write_data(path, 5, "val.jsonl", 9)
    return path


def _words(folder: Path, out: Path, **changes: Any) -> list[str]:
    flags = {
        "model_path": folder / "model",
        "train_data_path": folder / "train.jsonl",
        "output_dir": out,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_epochs": 1,
        "learning_rate": 1e-2,
        "save_steps": 2,
        "num_workers": 0,
        "device": "cpu",
        **changes,
    }
    return [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def test_all_flags_of_the_guide_are_there_and_translated() -> None:
    names = {flag.name for flag in FLAGS}
    assert set(GUIDE) <= names
    assert {flag.help for flag in FLAGS} <= set(catalogue())
    shown = build_parser().format_help()
    assert all(f"--{name}" in shown for name in names)


def test_the_guides_command_trains(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = _words(folder, out, val_data_path=folder / "val.jsonl", lr_scheduler_type="linear", text_loss_weight=0.5)
    assert main([*words, "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3 and not out.exists()
    assert main([*words, "--plan"]) == 0
    assert "device, all at the peak" in capsys.readouterr().out
    assert main([*words, "--bf16", "--json", "--set", "unified.dropout_text=0"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_trained"] == 12
    assert (out / "trained_model.pt").is_file() and (out / "best" / "best.json").is_file()
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert (settings["precision"], settings["scheduler"], settings["unified"]["dropout_text"]) == (
        "bf16",
        "linear",
        0.0,
    )
    assert main([*words, "--bf16"]) == 2  # other settings in the same folder
    assert "unified" in capsys.readouterr().err


def test_wrong_flags_and_paths_fail_at_once_without_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from bettersynth.cli.unified import main; "
        "assert main(['--model_pth', 'x']) == 2; assert main(['--model', 'x']) == 2; "
        "assert main(['--model_path', 'x', '--train_data_path', 'y', '--output_dir', 'z']) == 2; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "did you mean '--model_path'" in done.stderr and "model folder not found" in done.stderr


def test_all_wrong_paths_and_values_are_listed(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder / "model", bare)
    (bare / "ema.safetensors").unlink()
    with pytest.raises(ConfigErrors) as caught:
        build_job(
            {
                "model_path": bare,
                "train_data_path": folder / "no.jsonl",
                "val_data_path": "v",
                "image_root": "i",
                "resume_from_checkpoint": "o/step_1",
                "fp16": True,
                "bf16": True,
                "lerning_rate": 1,
            }
        )
    text = str(caught.value)
    for part in (
        "ema.safetensors",
        "no.jsonl",
        "--image_root",
        "o/step_1",
        "one of --fp16",
        "learning_rate",
        "--output_dir",
    ):
        assert part in text, part
    good = {"model_path": folder / "model", "train_data_path": folder / "train.jsonl", "output_dir": "o"}
    with pytest.raises(ConfigErrors) as caught:
        build_job(
            {**good, "val_data_path": "v", "learning_rate": -1.0, "lora_rank": 0, "freeze": ["und", "x"]},
            {"weight_decay": float("inf"), "unified.dropout_text": 2},
        )
    assert {problem.where for problem in caught.value.problems} == {
        *("--val_data_path", "--learning_rate", "--set weight_decay", "--lora_rank"),
        *("--freeze", "--set unified.dropout_text"),
    }
    assert "more than 0" in str(caught.value) and "a finite number" in str(caught.value)


def test_words_that_cannot_be_read_are_told_with_all_other_mistakes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(folder, tmp_path / "out", model_path=tmp_path / "gone", learning_rate="x", batch_size="1.5")
    words += ["--lr_scheduler_type", "lin", "--model_pth", "x", "--sharding=some", "--set", "seed=[", "--set", "word"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "8 problems" in said and "did you mean '--model_path'" in said and "model folder not found" in said
    for wrong in ("--learning_rate", "--batch_size", "--lr_scheduler_type", "--sharding", "got: seed=[", "got: word"):
        assert wrong in said, wrong
    assert main(["word"]) == 2 and "unknown arguments: word" in capsys.readouterr().err


def test_files_that_a_model_lacks_are_named_before_torch_is_loaded(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder / "model", bare)
    (bare / "ae.safetensors").unlink()
    code = (
        "import sys; from bettersynth.cli import main, unified; folder = sys.argv[1]; "
        "assert main.main(['serve', '--model', folder]) == 1; "
        "assert main.main(['generate', '--model', folder, 'a cup']) == 1; "
        "assert unified.main(['--model_path', folder, '--train_data_path', 'y', '--output_dir', 'z']) == 2; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, bare], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ae.safetensors") == 3 and done.stderr.count("copy the autoencoder") == 3


def test_a_state_is_taken_over_by_the_guides_name(
    unified_kit: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, program = tmp_path / "first", unified_kit.__file__
    whole = _words(folder, tmp_path / "whole")
    assert main([*whole, "--json"]) == 0
    digest = json.loads((tmp_path / "whole" / "manifest.json").read_text())["facts"]["weights_digest"]
    job = build_job(
        {
            "model_path": folder / "model",
            "train_data_path": folder / "train.jsonl",
            "output_dir": first,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_epochs": 1,
            "learning_rate": 1e-2,
            "save_steps": 2,
            "num_workers": 0,
            "device": "cpu",
        }
    )
    (tmp_path / "c.json").write_text(job.config.model_dump_json(exclude_none=True))
    env = {**os.environ, "KILL_AT": "3", "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    killed = subprocess.run([sys.executable, program, tmp_path / "c.json", first], env=env, capture_output=True)
    assert killed.returncode == -9 and find_state(first / "step_2") == first / "checkpoint-2"
    branch = _words(folder, tmp_path / "branch", resume_from_checkpoint=first / "step_2")
    assert main([*branch, "--json"]) == 0
    again = json.loads((tmp_path / "branch" / "manifest.json").read_text())["facts"]["weights_digest"]
    assert again == digest
    assert main([*_words(folder, first, resume_from_checkpoint=first / "step_2")]) == 0


def test_presets_of_joint_training_by_the_train_command(folder: Path, call: Any, tmp_path: Path) -> None:
    words = ("train", "--preset", "bagel_demo", "--out", tmp_path, "--set", "joint.samples_seen=16")
    done = call(*words, "--data", folder / "train.jsonl", "--init-from", folder / "model", "--json", expect=0)
    assert done.data["steps"] == 1 and (tmp_path / "training_dirs" / "BAGEL-default" / "ema.safetensors").is_file()
    wrong = call(*words, "--data", folder / "no.jsonl", "--images", tmp_path / "gone", expect=2).err
    assert "no.jsonl" in wrong and "--init-from" in wrong and "--images" in wrong
    elsewhere = ("--data", folder / "train.jsonl", "--init-from", folder / "model", "--images", folder / "model")
    assert "--images DIR" in call(*words, "--name", "x", *elsewhere, expect=1).err
    assert "bagel_demo" in call("train", "--preset", "demo", "--data", folder / "train.jsonl", expect=2).err


def test_the_folder_and_its_import_names(call: Any, tmp_path: Path, folder: Path) -> None:
    kit = tmp_path / "kit"
    planned = call("init", kit, "--track", "unified", "--plan", "--json").data
    assert not kit.exists() and set(planned.values()) == {"to do"}
    assert set(call("init", kit, "--track", "unified", "--json").data["written"]) == set(planned)
    readme = (kit / "README_training.md").read_text()
    assert "@FLAGS@" not in readme and all(f"`--{flag.name}" in readme for flag in FLAGS)
    assert not call("init", kit, "--track", "unified", "--json").data["written"]
    names = ["training.unified_data_processor:UnifiedGenerationDataset", "training.unified_trainer:UnifiedTrainer"]
    names.append("inferencer:InterleaveInferencer")
    if importlib.util.find_spec("bettersynth.eval.generation"):
        names.append("training.evaluation_metrics:fid")
    code = "; ".join(f"from {name.replace(':', ' import ')}" for name in names)
    code += f"; d = UnifiedGenerationDataset({str(folder / 'train.jsonl')!r}, {str(folder / 'model')!r})"
    code += (
        "; assert len(d) == 12 and sum(map(len, d.packs(200))) == 12; assert len(d.batch([0, 1])['sample_lens']) == 2"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=kit, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script = subprocess.run(
        [sys.executable, "train_unified_generation.py", "--bach_size", "1"], cwd=kit, capture_output=True, text=True
    )
    assert script.returncode == 2 and "did you mean '--batch_size'" in script.stderr


def test_what_a_record_teaches_can_be_looked_at(call: Any, folder: Path) -> None:
    words = ("inspect", "--mask", folder / "train.jsonl", "--model", folder / "model")
    masks = call(*words, "--first", 12, "--json").data
    assert len(masks) == 12 and all(mask["num_targets"] > 0 for mask in masks)
    pieces = [piece for mask in masks for piece, _ in mask["pieces"]]
    assert {"<seen>", "<drawn>"} <= set(pieces)
    one = masks[3]
    shown = call(*words, one["key"]).out
    assert f"{one['key']}: {one['num_tokens']} tokens" in shown and "[[" in shown and "1 / 12" in shown
    assert "did you mean" in call(*words, one["key"] + "x", expect=1).err
