"""Kits: every file is there, the scripts are sound, nothing is overwritten, foreign kits are taken over."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import set_language
from bettersynth.engine.plan import read_recipe
from bettersynth.kit.build import STRATEGIES, adopt, init, kit_files, strategy_files
from bettersynth.submission.locked_files import changed_locked, read_record, record_data

TRACKS = ("online", "final", "10k", "demo", "open")
EVERYWHERE = """\
install.sh download.sh README.md README.zh.md
solution/readme solution/requirements.txt solution/image_captioning.yaml solution/data_process_config.yaml
solution/run_experiment.py solution/strategy_comparison.py solution/data_exploration.py solution/analyze_results.py
solution/dj_to_llava_format.py
toolkit/train_mgm_2b_stage_1.sh toolkit/eval/textvqa.sh toolkit/eval/mmbench.sh toolkit/kit.json
toolkit/data-juicer/tools/process_data.py toolkit/data-juicer/configs/demo/process.yaml
toolkit/data-juicer/tools/multimodal/data_juicer_format_to_target_format/dj_to_llava.py
toolkit/data-juicer/tools/multimodal/source_format_to_data_juicer_format/llava_to_dj.py
toolkit/training/preprocess/check_global_batch_size.py toolkit/training/preprocess/check_sample_number.py
toolkit/training/scripts/zero2.json toolkit/training/scripts/zero2_offload.json toolkit/training/scripts/zero3.json
toolkit/training/scripts/merge_lora_weights.py toolkit/training/scripts/extract_mm_projector.py
toolkit/training/scripts/convert_mmbench_for_submission.py
"""
CHALLENGE = """
download_10k_baseline.sh download_blip.py 10k_quick_baseline.ipynb toolkit/train_mgm_2b_stage_1_10k_baseline.sh
"""


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")


@pytest.mark.parametrize("track", TRACKS)
def test_every_file_of_a_kit_is_there(tmp_path: Path, track: str) -> None:
    report = init(tmp_path, track)
    expected = set(EVERYWHERE.split()) | (set(CHALLENGE.split()) if track not in ("demo", "open") else set())
    expected |= {f"solution/{name}" for name in strategy_files(track)}
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert made == expected
    assert set(report.written) == expected - {"toolkit/kit.json"} and report.kept == ()
    assert any("stage_1.json" in name for name in report.missing)


@pytest.mark.parametrize("track", TRACKS)
def test_scripts_are_sound_and_hold_no_absolute_path_or_placeholder(tmp_path: Path, track: str) -> None:
    init(tmp_path, track)
    for name, text in kit_files(track).items():
        assert not re.search(r"@[A-Z_]+@", text), name
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#!"))
        assert not re.search(r"(?<![\w.:/])/(mnt|root|home|data|tmp|work|opt)\b", body), name
        path = tmp_path / name
        if path.suffix == ".sh":
            assert text.startswith("#!/bin/bash\n") and os.access(path, os.X_OK)
            done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        elif path.suffix == ".py":
            compile(text, name, "exec")
        elif path.suffix in (".json", ".ipynb"):
            json.loads(text)


@pytest.mark.parametrize("track", ["online", "demo"])
def test_recipes_are_valid(tmp_path: Path, track: str) -> None:
    init(tmp_path, track)
    recipes = ("solution/image_captioning.yaml", "solution/data_process_config.yaml")
    for name in (*recipes, "toolkit/data-juicer/configs/demo/process.yaml"):
        recipe = read_recipe(tmp_path / name)
        assert recipe.keys.track == "challenge" and recipe.steps
        assert not Path(recipe.keys.dataset_path).is_absolute()
        assert any("caption" in step.operator for step in recipe.steps), "a synthesis step is part of it"


def test_init_again_writes_only_what_is_missing_and_keeps_changes(tmp_path: Path) -> None:
    init(tmp_path, "demo")
    (tmp_path / "solution/readme").write_text("mine")
    (tmp_path / "install.sh").unlink()
    report = init(tmp_path, "demo")
    assert report.written == ("install.sh",) and "solution/readme" in report.kept
    assert (tmp_path / "solution/readme").read_text() == "mine"


def test_init_refuses_another_track_and_foreign_kits(tmp_path: Path) -> None:
    init(tmp_path / "a", "demo")
    with pytest.raises(ConfigError, match="another track"):
        init(tmp_path / "a", "online")
    (tmp_path / "b/toolkit").mkdir(parents=True)
    (tmp_path / "b/toolkit/train_mgm_2b_stage_1.sh").write_text("#!/bin/bash\n")
    with pytest.raises(ConfigError, match="not made here") as caught:
        init(tmp_path / "b")
    assert "--adopt" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="unknown track"):
        init(tmp_path / "c", "onlin")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        init(tmp_path / "file", "demo")


def _foreign_kit(root: Path) -> Path:
    for name, text in {
        "toolkit/train_mgm_2b_stage_1.sh": "# Editable Part Begins #\nEXP_NAME=x\n# Editable Part Ends #\n",
        "toolkit/training/mgm/train.py": "print()\n",
        "toolkit/training/preprocess/check_global_batch_size.py": "own\n",
        "toolkit/data-juicer/README.md": "dj\n",
        "input/pretrain_stage_1_10k/stage_1.json": "[]",
        "input/pretrain_stage_1_10k/mgm_pretrain_stage_1_10k.jsonl": "",
        "toolkit/training/data/finetuning_stage_1_12k/mgm_instruction_stage_1_12k.json": "[]",
        "output/training_dirs/MGM-2B-Finetune-x/finetuning.log": "loss",
        "solution/readme.txt": "own",
        "solution/image_captioning.yaml": "own",
        "install.sh": "own",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_adopt_notes_what_is_there_and_overwrites_nothing(tmp_path: Path) -> None:
    kit = _foreign_kit(tmp_path / "kit")
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    report = adopt(kit)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert report.track == "10k" and report.found["training code"] == ("toolkit/training/mgm",)
    assert report.found["logs"] == ("output/training_dirs/MGM-2B-Finetune-x/finetuning.log",)
    assert "solution/run_experiment.py" in report.written and "solution/image_captioning.yaml" in report.kept
    assert not any(name.startswith(("toolkit/training", "install", "README")) for name in report.written)
    record = read_record(kit)
    assert record is not None and record.is_adopted and "toolkit/training/mgm/train.py" in record.locked
    assert changed_locked(kit, record) == []
    (kit / "toolkit/training/mgm/train.py").write_text("changed\n")
    script = kit / "toolkit/train_mgm_2b_stage_1.sh"
    script.write_text(script.read_text().replace("EXP_NAME=x", "EXP_NAME=y"))
    adopt(kit)
    assert changed_locked(kit, record) == ["toolkit/training/mgm/train.py was changed; it is locked"]


def test_adopt_refuses_a_folder_that_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no kit folder"):
        adopt(tmp_path)


def test_fixed_inputs_are_noted_once(tmp_path: Path) -> None:
    init(tmp_path, "demo")
    questions = tmp_path / "input/pretrain_stage_1_demo/stage_1.json"
    questions.parent.mkdir(parents=True)
    questions.write_text("[]")
    first = record_data(tmp_path).data["input/pretrain_stage_1_demo/stage_1.json"]
    questions.write_text("[1]")
    assert record_data(tmp_path).data["input/pretrain_stage_1_demo/stage_1.json"] == first
    with pytest.raises(DataError, match="no kit record"):
        record_data(tmp_path / "none")


def _stub(folder: Path) -> dict[str, str]:
    """A ``bettersynth`` on the path that writes down how it is called and does the conversions' copying."""
    script = folder / "bin" / "bettersynth"
    script.parent.mkdir()
    script.write_text(
        f"""#!{sys.executable}
import os, shutil, sys
arguments = sys.argv[1:]
with open({str(folder / "calls.txt")!r}, "a") as log:
    log.write(" ".join(arguments) + " | " + os.environ.get("EXP_NAME", "") + "\\n")
if arguments[0] == "convert":
    shutil.copy(arguments[arguments.index("--input") + 1], arguments[arguments.index("--output") + 1])
if "--check-batch" in arguments:
    place = arguments.index("--check-batch")
    batch, accumulation, devices = map(int, arguments[place + 1 : place + 4])
    sys.exit(0 if batch * accumulation * devices == int(arguments[-1]) else 2)
"""
    )
    script.chmod(0o755)
    keep = {key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "NUM_GPUS")}
    return {**keep, "PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHON": sys.executable, "NUM_GPUS": "1"}


def test_the_train_script_runs_every_step_in_order(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    init(kit, "demo")
    data = kit / "output/processed_data/processed_data.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text("{}\n")
    environment = _stub(tmp_path)
    command = ["bash", "toolkit/train_mgm_2b_stage_1.sh"]
    done = subprocess.run(command, cwd=kit, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    starts = [" ".join(call.split()[:2]) for call in calls]
    assert starts == [
        "train --check-batch",
        "train --check-batch",
        "convert sample",
        "convert dj-to-llava",
        "train --preset",
        "eval textvqa",
        "eval mmbench",
    ]
    assert "--preset demo --from-env --out ../output --model-zoo training/model_zoo" in calls[4]
    assert calls[4].endswith("| default") and "--original ../input/pretrain_stage_1_demo/stage_1.json" in calls[3]
    assert "--name MGM-2B-Finetune-default --split mmbench_dev_20230712 --gpus 0" in calls[6]
    assert (kit / "output/train.sh").read_bytes() == (kit / "toolkit/train_mgm_2b_stage_1.sh").read_bytes()


def test_the_train_script_stops_at_a_wrong_batch(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    init(kit, "demo")
    script = kit / "toolkit/train_mgm_2b_stage_1.sh"
    text = script.read_text()
    script.write_text(text.replace("FINETUNE_BATCH_SIZE_PER_GPU=16", "FINETUNE_BATCH_SIZE_PER_GPU=5"))
    environment = _stub(tmp_path)
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "global batch size of the finetuning stage is not 16" in done.stderr
    assert not (kit / "output/train.sh").exists()


def test_thin_scripts_call_their_commands(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    init(kit, "online")
    environment = _stub(tmp_path)
    (kit / "a.jsonl").write_text("{}\n")
    for words in (
        ["solution/run_experiment.py", "data_only"],
        ["solution/strategy_comparison.py", "--seeds", "5"],
        ["solution/dj_to_llava_format.py", "--input", "a.jsonl", "--output", "b.json"],
        ["toolkit/data-juicer/tools/process_data.py", "--config", "solution/image_captioning.yaml", "--np", "2"],
        ["toolkit/training/preprocess/check_global_batch_size.py", "4", "64", "256"],
    ):
        done = subprocess.run(
            [sys.executable, *words], cwd=kit, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    assert [call.partition(" |")[0] for call in (tmp_path / "calls.txt").read_text().splitlines()] == [
        "run --workspace . data_only",
        "compare --workspace . --seeds 5",
        "convert dj-to-llava --input a.jsonl --output b.json --original ./input/pretrain_stage_1/stage_1.json",
        "process solution/image_captioning.yaml --np 2",
        "train --check-batch 4 64 1 --expected 256",
    ]


def test_eval_scripts_find_the_only_model(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    init(kit, "online")
    environment = _stub(tmp_path)
    command = ["bash", "toolkit/eval/textvqa.sh"]
    done = subprocess.run(command, cwd=kit, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "name one of the fine-tuned models" in done.stderr
    (kit / "output/training_dirs/MGM-2B-Finetune-mine").mkdir(parents=True)
    done = subprocess.run(command, cwd=kit, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "eval textvqa --name MGM-2B-Finetune-mine --gpus 0" in (tmp_path / "calls.txt").read_text()


def test_download_lists_what_is_missing(tmp_path: Path) -> None:
    init(tmp_path, "online")
    done = subprocess.run(["bash", "download.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing   input/pretrain_stage_1 " in done.stdout and "gemma-2b-it" in done.stdout


def test_strategies_come_from_the_package() -> None:
    assert set(strategy_files("online")) <= {f"{name}.yaml" for name in STRATEGIES}
