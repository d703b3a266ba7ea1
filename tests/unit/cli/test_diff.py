"""The difference of two data sets on the command line."""


def _rows(folder):
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "x"}\n', encoding="utf-8")
    return folder / "rows.jsonl"


def test_two_results_of_one_pool(call, tiny_world, tmp_path):
    words = ("process", tiny_world / "mine.yaml", "--workspace", tiny_world, "--np", 1)
    call(*words, "--out", tmp_path / "a")
    call(*words, "--out", tmp_path / "b", "--set", "text_length_filter.min_len=60")
    text = call("diff", tmp_path / "a", tmp_path / "b").out
    assert "only in A" in text and "text_length_filter: text_len below min_len" in text
    found = call("diff", tmp_path / "a", tmp_path / "b", "--json", "--show", 1).data
    assert found["rows_a"] == found["same"] + sum(group["samples"] for group in found["groups"])
    assert all(len(group["examples"]) == 1 for group in found["groups"])
    assert "samples equal" in call("diff", tmp_path / "a", tmp_path / "a").out
    gone = call("diff", tmp_path / "a", tmp_path / "none", expect=2).err
    assert f"no such file or folder\n  where: {tmp_path / 'none'}\nhint: see what is there with: ls {tmp_path}" in gone
    assert "did you mean 'rows.jsonl'?" in call("diff", _rows(tmp_path), tmp_path / "row.jsonl", expect=2).err
    assert "not a number of ids" in call("diff", tmp_path / "a", tmp_path / "b", "--show", -1, expect=2).err


def test_what_steers_a_terminal_is_written_out(call, tmp_path):
    rows = _rows(tmp_path)
    (tmp_path / "other.jsonl").write_text('{"id": "a\\u001b[2J\\nb", "text": "é"}\n', encoding="utf-8")
    text = call("diff", rows, tmp_path / "other.jsonl").out
    assert "\x1b" not in text and "a\\x1b[2J\\nb" in text
