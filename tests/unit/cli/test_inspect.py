"""Passports of rows, and what training learns from a sample."""

from importlib.util import find_spec

import pytest


def test_passport_of_a_dropped_and_a_changed_row(call, tiny_world, tmp_path):
    words = ("process", tiny_world / "mine.yaml", "--workspace", tiny_world, "--out", tmp_path / "data", "--np", 1)
    call(*words, "--set", "text_length_filter.min_len=60")
    groups = {(row["operator"], row["action"]): row for row in call("inspect", tmp_path / "data", "--json").data}
    dropped = groups["text_length_filter", "dropped"]["examples"][0]
    changed = groups["clean_html_mapper", "changed"]["examples"][0]
    text = call("inspect", tmp_path / "data", dropped).out
    assert dropped in text and "text_length_filter  dropped" in text and "text_len=" in text and "before:" in text
    events = call("inspect", tmp_path / "data", changed, "--json").data[changed]
    change = next(event for event in events if event["action"] == "changed")
    assert change["before"] != change["after"]
    error = call("inspect", tmp_path / "data", "00000000x", expect=1).err
    assert "no row of that id" in error and "did you mean" in error


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_mask_from_a_model_zoo_or_a_checkpoint(call, finished_world):
    data = finished_world / "output" / "processed_data" / "llava_format.json"
    zoo = finished_world / "toolkit" / "training" / "model_zoo"
    checkpoint = finished_world / "output" / "training_dirs" / "MGM-2B-Finetune-mine-1"
    shown = call("inspect", "--mask", data, "--model", zoo, "--first", 2).out
    assert shown.count("<image>") == 2 and "[[" in shown and "shown" in shown
    found = [call("inspect", "--mask", data, "--model", m, "000000003", "--json").data[0] for m in (zoo, checkpoint)]
    assert found[0] == found[1] and found[0]["num_targets"] > 0 and found[0]["num_image_tokens"] == 16
    assert [is_target for _, is_target in found[0]["pieces"]] == [False, False, False, True]


def test_what_is_missing_is_said(call, tiny_world, tmp_path):
    assert "give a processed folder" in call("inspect", expect=2).err
    assert "--mask needs --model" in call("inspect", "--mask", tiny_world / "x.json", expect=2).err
    assert "no trace here" in call("inspect", tmp_path, expect=1).err
