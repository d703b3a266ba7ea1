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
