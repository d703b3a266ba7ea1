"""Wrong words on the command line end in a sentence with the next step, not in a trace or in work for nothing."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "textvqa", "--limit", "-3", "--plan"),
        ("eval", "textvqa", "--batch-size", "0"),
        ("demo", "--workers", "0", "--plan"),
        ("run", "--limit", "0"),
        ("compare", "--workers", "-1", "--plan"),
        ("train", "--devices", "0"),
        ("score", "x", "--resamples", "0"),
    ],
)
def test_counts_below_one_are_refused(words, call):
    done = call(*words, expect=2)
    assert (
        "needed is a whole number of at least 1" in done.err and words[-2 if words[-1] != "--plan" else -3] in done.err
    )


def test_an_unknown_language_is_refused_wherever_it_stands(call):
    assert "unknown language" in call("--lang", "fr", "doctor", expect=2).err
    assert "expected: en | zh" in call("doctor", "--lang=fr", expect=2).err


def test_the_demo_leaves_folders_of_others_alone(call, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for plan in ((), ("--plan",)):
        done = call("demo", "--quick", "--out", folder, *plan, expect=2)
        assert (
            "not empty" in done.err and "notes.txt" in done.err and "hint: bettersynth demo --quick --out" in done.err
        )
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert "a file, not a folder" in call("demo", "--quick", "--out", folder / "notes.txt", expect=2).err
    call("demo", "--quick", "--out", tmp_path / "new", "--plan")
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_said(call):
    done = call("demo", "--quick", "--out", "/proc/q", expect=1)
    assert "cannot write the file" in done.err and "/proc/q" in done.err


def test_a_device_that_is_not_there_is_said(call, tmp_path):
    torch = pytest.importorskip("torch")
    from bettersynth.core.errors import ConfigError
    from bettersynth.infer._torch import choose_device

    with pytest.raises(ConfigError, match=r"no CUDA device|not there"):
        choose_device(f"cuda:{torch.cuda.device_count()}")
    with pytest.raises(ConfigError, match="unknown device"):
        choose_device("tpu")
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    done = call(
        "eval", "textvqa", "--checkpoint", checkpoint, "--device", f"cuda:{torch.cuda.device_count()}", expect=2
    )
    assert "hint: use device: cpu" in done.err or "not there" in done.err


def test_eval_names_the_splits_that_there_are(call, tmp_path):
    folder = tmp_path / "eval" / "mmbench"
    folder.mkdir(parents=True)
    (folder / "mmbench_dev.tsv").write_text("")
    done = call("eval", "mmbench", "--data", tmp_path / "eval", "--split", "nosuch", "--plan", expect=1)
    assert "no such split" in done.err and "expected: mmbench_dev" in done.err


def test_eval_says_that_a_checkpoint_is_missing_before_it_loads_anything(call, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bettersynth.infer.checkpoint", None)  # an import of it would fail
    assert "no checkpoint here" in call("eval", "mmbench", "--checkpoint", "nowhere", expect=1).err


def test_run_in_an_empty_kit_says_everything_that_is_missing(call, tmp_path):
    kit = tmp_path / "kit"
    call("init", kit, "--track", "10k")
    done = call("run", "--workspace", kit, expect=2)
    assert all(what in done.err for what in ("no seed data", "no original questions", "no stage-2 data", "llm folder"))
    assert "download.sh" in done.err
    assert "no seed data" in call("run", "--workspace", kit, "--plan", expect=2).err


def test_own_pairs_without_a_kit_are_led_to_the_open_track(call, tmp_path):
    done = call("run", "--pairs", "p.jsonl", "--workspace", tmp_path / "kit", expect=2)
    assert f"bettersynth init {tmp_path / 'kit'} --track open" in done.err
    assert "--track" not in call("run", "--workspace", tmp_path / "kit", expect=2).err


def test_missing_folders_are_called_missing(call, tmp_path):
    nope = tmp_path / "nope"
    for words in (("submit", nope), ("compare", "--workspace", nope, "--plan"), ("init", "--adopt", nope)):
        done = call(*words, expect=2)
        assert "no such folder" in done.err and "bettersynth init" in done.err
    (tmp_path / "plain").mkdir()
    assert "--set preset=" in call("compare", "--workspace", tmp_path / "plain", "--plan", expect=2).err
    assert "hint: make one with: bettersynth run" in call("report", nope, expect=1).err
    assert "eval_results/NAME/PROTOCOL" in call("score", nope, expect=1).err
    assert "hint: make them with" in call("analyze", "A", "B", "--workspace", tmp_path, expect=1).err


def test_score_names_the_folders_with_answers(call, tmp_path):
    place = tmp_path / "eval_results" / "m" / "textvqa-noocr"
    place.mkdir(parents=True)
    (place / "predictions.jsonl").write_text("")
    done = call("score", tmp_path, expect=1)
    assert "no answers in this folder" in done.err and f"hint: bettersynth score {place}" in done.err


def test_a_projector_is_no_checkpoint_and_the_way_on_is_named(call, tmp_path):
    first, second = (tmp_path / f"MGM-2B-{kind}-mine" for kind in ("Pretrain", "Finetune"))
    for folder in (first, second):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    (first / "mm_projector.bin").write_bytes(b"")
    done = call("eval", "textvqa", "--checkpoint", first, expect=2)
    assert f"hint: --checkpoint {second}" in done.err
    (second / "config.json").unlink()
    assert "bettersynth train --stage 2 --name mine" in call("eval", "textvqa", "--checkpoint", first, expect=2).err


def test_a_submission_of_an_empty_kit_lists_all_that_is_missing(call, tmp_path):
    kit = tmp_path / "kit"
    call("init", kit, "--track", "10k")
    said = call("submit", kit, "--plan", expect=2).err
    parts = ("output/train.sh", "processed_data", "MGM-2B-Pretrain", "MGM-2B-Finetune", "eval_results", "stage_1.json")
    assert all(part in said for part in parts)


def test_a_broken_zip_is_told_in_our_words(call, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    done = call("submit", "--check", tmp_path / "x.zip", "--lang", "zh", expect=1)
    assert "不是 zip 文件" in done.err and "bettersynth submit" in done.err


def test_the_demo_kits_script_asks_for_the_demos_models():
    from bettersynth.submission.locked_files import locked_files

    assert "gemma-tiny-it" in locked_files("demo")["download.sh"]
    assert "gemma-2b-it" not in locked_files("demo")["download.sh"]
    assert "gemma-tiny-it" not in locked_files("online")["download.sh"]
