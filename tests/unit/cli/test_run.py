"""The user's own data through the loop: the whole, its parts, its plan, own pairs."""

import json
import shutil

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.submission.train_script import read_script

NAME = "MGM-2B-Finetune-mine-1"


def words(root, *more):
    places = ("--workspace", root, "--strategy", root / "mine.yaml", "--preset", root / "preset.yaml")
    return ("run", *more, *places, "--tasks", "textvqa-noocr", "mmbench", "--workers", "1")


def test_the_whole_loop_leaves_everything_where_a_kit_expects_it(finished_world):
    output = finished_world / "output"
    assert Artifact.exists(output / "processed_data") and Artifact.exists(output / "training_dirs" / NAME)
    assert Artifact.exists(output / "eval_results" / NAME / "textvqa-noocr" / "scores")
    page = (output / "report" / "report.html").read_text(encoding="utf-8")
    assert "mmbench-circular" in page and "clean_html_mapper" in page and "Filters against the known noise" in page
    script = read_script((output / "train.sh").read_text(encoding="utf-8"))
    assert script.values["EXP_NAME"] == "mine-1" and script.problems == ()
    assert script.values["PRETRAIN_DATASET"] == "../output/processed_data/processed_data.jsonl"


def test_again_does_nothing_and_the_parts_find_it_done(call, finished_world, tmp_path):
    root = shutil.copytree(finished_world, tmp_path / "kit")
    weights = next((root / "output" / "training_dirs" / NAME).glob("*.safetensors"))
    before = weights.stat().st_mtime_ns
    plan = call(*words(root), "--plan", "--json").data
    assert {row["state"] for row in plan} == {"done"}
    stages = call(*words(root, "train_only"), "--json").data
    assert [stage["rows"] for stage in stages] == [16, 8] and weights.stat().st_mtime_ns == before
    results = call(*words(root, "eval_only"), "--json").data
    assert results[NAME][0]["protocol"] == "textvqa-noocr"


def test_data_only_and_plan(call, world):
    assert {row["state"] for row in call(*words(world), "--plan", "--json").data} == {"to do"}
    assert not (world / "output" / "processed_data").exists()
    assert "clean_html_mapper" in call(*words(world, "data_only")).out
    assert (world / "output" / "processed_data" / "llava_format.json").is_file()
    first = call(*words(world), "--plan").out.splitlines()
    assert "done" in next(line for line in first if "data:" in line)
    other = call("run", "--workspace", world, "--preset", world / "preset.yaml", "--strategy", "raw", "--plan").out
    assert "takes the place of other data" in " ".join(other.split())


def test_parts_out_of_order_say_what_comes_first(call, world):
    assert "run data_only" in call(*words(world, "train_only"), expect=1).err
    assert "no trained model of that name" in call(*words(world, "eval_only"), expect=1).err


def test_wrong_requests(call, world, tmp_path):
    assert "no such folder" in call("run", "--workspace", tmp_path / "no", expect=2).err
    assert "did you mean" in call("run", "--workspace", world, "--preset", "dem", expect=2).err
    assert "at least one seed" in call(*words(world), "--seeds", 0, expect=2).err
    assert "fixes its seed" in call("run", "--workspace", world, "--preset", "10k", "--seeds", 3, expect=2).err
    assert "not a name" in call(*words(world), "--name", "a b", "--plan", expect=2).err
    assert "--images needs --pairs" in call(*words(world), "--images", world, expect=2).err
    assert "unknown strategy" in call("run", "--workspace", world, "--strategy", "nope", "--plan", expect=2).err
    (tmp_path / "bare").mkdir()
    assert "--preset" in call("run", "--workspace", tmp_path / "bare", expect=2).err


@pytest.fixture
def open_kit(call, tmp_path):
    kit = tmp_path / "own"
    call("init", kit, "--track", "open")
    (kit / "raw.yaml").write_text("process: []\n", encoding="utf-8")
    return kit


def test_own_pairs_become_the_seed_set(call, open_kit, tiny_world, tmp_path):
    pictures = tiny_world / "input" / "pretrain_stage_1_demo" / "images" / "00000"
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"image": f"{number:09d}.jpg", "caption": f"a picture {number}"} for number in range(3)]
    rows += [{"image": "../secret.jpg", "caption": "x"}, {"image": "1.jpg"}]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")
    command = ("run", "data_only", "--workspace", open_kit, "--strategy", open_kit / "raw.yaml")
    done = call(*command, "--pairs", pairs, "--images", pictures, "--workers", 1)
    assert "own pairs: 3" in done.err and "3 unusable" in done.err
    seed = open_kit / "input" / "pretrain_stage_1_10k"
    reasons = [json.loads(line)["reason"] for line in (seed / "rejected.jsonl").read_text().splitlines()]
    assert len(reasons) == 3 and "inside the image folder" in reasons[0]
    rows = (open_kit / "output" / "processed_data" / "processed_data.jsonl").read_text().splitlines()
    assert len(rows) == 3 and json.loads(rows[0])["images"] == ["images/000000000.jpg"]
    assert "imported before" in call(*command, "--pairs", pairs, "--images", pictures, "--workers", 1).err


def test_own_pairs_never_replace_a_seed_set(call, world, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"image": "a.jpg", "text": "a dog"}\n', encoding="utf-8")
    assert "another seed set" in call(*words(world, "data_only"), "--pairs", pairs, expect=1).err
    kit = tmp_path / "challenge"
    call("init", kit, "--track", "10k")
    assert "is fixed" in call("run", "data_only", "--workspace", kit, "--pairs", pairs, expect=2).err


def test_a_plan_counts_own_pairs_and_imports_nothing(call, open_kit, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"image": "a.jpg", "text": "a dog"}\n{"image": "b.jpg"}\n', encoding="utf-8")
    command = ("run", "--workspace", open_kit, "--pairs", pairs, "--plan")
    done = call(*command)
    assert "1 usable, 1 not" in done.out and not list(open_kit.glob("input/*/*"))
    kit = tmp_path / "challenge"
    call("init", kit, "--track", "10k")
    assert "is fixed" in call("run", "--workspace", kit, "--pairs", pairs, "--plan", expect=2).err


def test_a_recipe_file_that_is_not_there_is_called_so(call):
    assert "no such recipe file" in call("process", "mine.yaml", expect=2).err
