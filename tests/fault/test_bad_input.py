"""Every mistake a user can make with input, through the command line: a clear error, and nothing lost or written."""

import json
import pickle
import shutil
import zipfile

import pytest

SEED = "input/pretrain_stage_1_demo"
EVAL = "toolkit/eval"


@pytest.fixture
def rows(world):
    """The seed set's file."""
    return world / SEED / "mgm_pretrain_stage_1_demo.jsonl"


def process(call, world, out, *more):
    """Process with a filter that opens nothing but headers; returns the facts and the rows set aside."""
    recipe = world / "images.yaml"
    recipe.write_text("process:\n  - image_size_filter: {min_size: '1kb'}\n", encoding="utf-8")
    done = call("process", recipe, "--workspace", world, "--out", out, "--np", 1, "--json", *more)
    lines = (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    facts = done.data
    dropped = sum(sum(step["dropped"].values()) for step in facts["accounting"])
    assert facts["rows_in"] == facts["rows_out"] + dropped + facts["quarantined"]
    return facts, [json.loads(line) for line in lines]


def damage(rows, change):
    """Replace the third line of the seed set."""
    lines = rows.read_text(encoding="utf-8").splitlines()
    lines[2] = change(lines[2])
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_missing_image_is_set_aside_alone(call, world, tmp_path):
    (world / SEED / "images" / "00000" / "000000002.jpg").unlink()
    facts, bad = process(call, world, tmp_path / "out")
    assert facts["quarantined"] == 1 and facts["rows_in"] == 16 and bad[0]["line"] == 3
    assert "image not found" in bad[0]["error"] and "000000002.jpg" in bad[0]["error"]


def test_truncated_jpeg_is_set_aside_alone(call, world, tmp_path):
    picture = world / SEED / "images" / "00000" / "000000002.jpg"
    picture.write_bytes(picture.read_bytes()[:900])
    facts, bad = process(call, world, tmp_path / "out", "--set", "on_truncated=quarantine")
    assert facts["quarantined"] == 1 and bad[0]["line"] == 3 and "truncated" in bad[0]["error"]


def test_invalid_json_line_is_set_aside_with_its_text(call, world, rows, tmp_path):
    damage(rows, lambda line: line[:-5])
    facts, bad = process(call, world, tmp_path / "out")
    assert facts["quarantined"] == 1 and facts["rows_in"] == 16
    assert bad[0]["line"] == 3 and "not valid JSON" in bad[0]["error"]
    assert "000000002" in json.dumps(bad[0])


def test_wrong_field_type_is_set_aside_with_the_field(call, world, rows, tmp_path):
    damage(rows, lambda line: json.dumps({**json.loads(line), "images": "a.jpg"}))
    facts, bad = process(call, world, tmp_path / "out")
    assert facts["quarantined"] == 1 and "'images' must be a list of paths" in bad[0]["error"]


def test_too_many_failed_rows_stop_the_run_but_not_before_they_are_written(call, world, tmp_path):
    shutil.rmtree(world / SEED / "images")
    recipe, out = world / "mine.yaml", tmp_path / "out"
    error = call("process", recipe, "--workspace", world, "--out", out, "--np", 1, expect=1).err
    assert "16 of 16 rows failed" in error and "image not found" in error
    assert len((out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()) == 16
    assert not (out / "manifest.json").exists()


def test_damaged_rows_stop_a_conversion_before_it_writes(call, world, rows, tmp_path):
    damage(rows, lambda line: "{")
    for what, more in (("sample", ["--max", 3]), ("dj-to-llava", ["--original", world / SEED / "stage_1.json"])):
        error = call("convert", what, "--input", rows, "--output", tmp_path / "out", *more, expect=1).err
        assert "1 row cannot be read" in error and "line 3" in error and not (tmp_path / "out").exists()


def test_unknown_operator_and_parameter_come_together_with_line_and_nearest_name(call, world, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "process:\n  - text_lenght_filter: {min_len: 3}\n  - text_length_filter: {min_length: 3}\n", encoding="utf-8"
    )
    error = call("process", recipe, "--workspace", world, expect=2).err
    assert "2 problems found" in error and "recipe.yaml:2" in error and "recipe.yaml:3" in error
    assert "did you mean 'text_length_filter'" in error and "did you mean 'min_len'" in error


def test_wrong_batch_arithmetic(call, world):
    error = call("train", "--check-batch", 4, 63, 1, "--expected", 256, expect=2).err
    assert "4 x 63 x 1" in error and "256" in error
    assert "right" in call("train", "--check-batch", 4, 64, 1, "--expected", 256).out
    words = ("--workspace", world, "--strategy", world / "raw.yaml", "--preset", world / "preset.yaml")
    wrong = ("--set", "finetune.per_device_batch_size=3", "--set", "pretrain.per_device_batch_size=5")
    error = call("run", *words, *wrong, "--workers", 1, expect=2).err
    assert "2 problems found" in error and "3 x 1 x 1" in error and "5 x 1 x 1" in error
    assert not (world / "output" / "processed_data").exists()


def test_no_annotation_file(call, finished_world, tmp_path):
    data = shutil.copytree(finished_world / EVAL, tmp_path / "eval")
    (data / "textvqa" / "TextVQA_0.5.1_val.json").unlink()
    answers = finished_world / "output" / "eval_results" / "MGM-2B-Finetune-mine-1" / "textvqa-noocr"
    before = (answers / "scores" / "results.json").read_bytes()
    error = call("score", answers, "--data", data, expect=1).err
    assert "no TextVQA annotation file" in error and "TextVQA_*.json" in error
    assert (answers / "scores" / "results.json").read_bytes() == before


def test_missing_checkpoint(call, world, tmp_path):
    words = ("--data", world / EVAL, "--out", tmp_path / "out")
    error = call("eval", "textvqa-noocr", "--checkpoint", tmp_path / "nowhere", *words, expect=1).err
    assert "no checkpoint here" in error and "nowhere" in error and not (tmp_path / "out").exists()
    assert "give either" in call("eval", "textvqa-noocr", *words, expect=2).err


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickle_with_code_in_it_is_refused_and_not_run(call, world, tmp_path):
    found = sorted((world / "toolkit" / "training" / "model_zoo").rglob("open_clip_pytorch_model.bin"))
    if not found:
        pytest.skip("no golden model zoo: set BETTERSYNTH_GOLDEN_MGM")
    found[0].write_bytes(pickle.dumps(Bomb(tmp_path / "harm"), protocol=2))
    words = ("--model-zoo", world / "toolkit" / "training" / "model_zoo", "--preset", world / "preset.yaml")
    data = world / "toolkit/training/data/finetuning_stage_1_demo"
    stage_2 = ("--stage", 2, "--finetune-data", data / "mgm_instruction_stage_1_demo.json", "--finetune-images", data)
    error = call("train", *words, *stage_2, "--out", tmp_path / "out", expect=None)
    assert error.code in (1, 2) and "open_clip_pytorch_model.bin" in error.err and "internal error" not in error.err
    assert not (tmp_path / "harm").exists()


def test_corrupt_and_escaping_zip(call, tmp_path):
    path = tmp_path / "submit.zip"
    path.write_bytes(b"PK\x03\x04 not a zip")
    assert "zip" in call("submit", "--check", path, "--track", "demo", expect=1).err
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("solution/readme", "x")
        archive.writestr("../../escaped", "x")
        archive.writestr("/absolute", "x")
    error = call("submit", "--check", path, "--track", "demo", expect=2).err
    assert "not safe to unpack" in error and "../../escaped" in error and "/absolute" in error
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("solution/readme", "0123456789" * 50)
    whole = path.read_bytes().replace(b"0123456789" * 3, b"9876543210" * 3, 1)
    path.write_bytes(whole)
    assert "checksum" in call("submit", "--check", path, "--track", "demo", expect=2).err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "submit.zip"]


def test_output_that_cannot_be_written(call, world, rows, tmp_path):
    """A file stands where a folder should be: tests may run as root, who may write anywhere else."""
    blocked = tmp_path / "file"
    blocked.write_text("mine", encoding="utf-8")
    original = ("--original", world / SEED / "stage_1.json")
    commands = (
        ("process", world / "mine.yaml", "--workspace", world, "--out", blocked / "out", "--np", 1),
        ("convert", "sample", "--input", rows, "--output", blocked / "out.jsonl", "--max", 3),
        ("convert", "dj-to-llava", "--input", rows, "--output", blocked / "out.json", *original),
        ("convert", "llava-to-dj", "--input", world / SEED / "stage_1.json", "--output", blocked / "out.jsonl"),
        ("explore", rows, "--html", blocked / "page"),
        ("init", blocked / "kit"),
    )
    for command in commands:
        error = call(*command, expect=1).err
        assert "cannot write" in error and str(blocked) in error, command
    assert blocked.read_text(encoding="utf-8") == "mine"


def test_too_many_samples_are_counted_and_announced(call, world, rows, tmp_path):
    done = call("convert", "sample", "--input", rows, "--output", tmp_path / "out.jsonl", "--max", 3)
    assert "16 rows sampled down to 3 (seed 1024); 13 left out" in done.out
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_workspace_without_its_parts(call, world):
    shutil.rmtree(world / "toolkit" / "training" / "data")
    words = ("--workspace", world, "--strategy", world / "raw.yaml", "--preset", world / "preset.yaml")
    error = call("run", *words, "--workers", 1, expect=1).err
    assert "no stage-2 data in this workspace" in error and "mgm_instruction" in error
