"""Pages made again from what is finished."""

import shutil
from pathlib import Path


def test_of_a_kit_a_data_set_and_scores(call, finished_world, tmp_path):
    page = call("report", finished_world, "--out", tmp_path / "a", "--title", "once more", "--json").data["page"]
    text = Path(page).read_text(encoding="utf-8")
    assert "once more" in text and "mmbench-circular" in text and "clean_html_mapper" in text
    data = call("report", finished_world / "output" / "processed_data", "--out", tmp_path / "b")
    assert "page" in data.out and "clean_html_mapper" in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    call("report", finished_world / "output" / "eval_results", "--out", tmp_path / "c")
    assert "MGM-2B-Finetune-mine-1" in (tmp_path / "c" / "report.html").read_text(encoding="utf-8")


def test_a_kit_that_was_moved_keeps_its_report(call, finished_world, tmp_path):
    moved = shutil.copytree(finished_world, tmp_path / "moved")
    page = call("report", moved, "--json").data["page"]
    assert str(moved) in page and "mmbench-vanilla" in Path(page).read_text(encoding="utf-8")


def test_nothing_to_report(call, tmp_path):
    assert "nothing to report on" in call("report", tmp_path, expect=1).err
    assert "no such folder" in call("report", tmp_path / "no", expect=1).err


def test_data_made_by_another_run_since_is_not_shown_as_this_ones(call, finished_world, tmp_path):
    root = shutil.copytree(finished_world, tmp_path / "kit")
    places = ("--workspace", root, "--preset", root / "preset.yaml", "--workers", 1)
    title = "Every row, operator by operator"
    assert title in Path(call("report", root, "--json").data["page"]).read_text(encoding="utf-8")
    call("run", "data_only", "--strategy", root / "raw.yaml", *places)
    assert title not in Path(call("report", root, "--json").data["page"]).read_text(encoding="utf-8")
