"""The benchmarks run on a few rows, our side only; what they say about rows is checked, what about speed is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest.mock import patch

import pytest
from benchmarks import data
from benchmarks.__main__ import main
from benchmarks.cases import CASES, two_processes
from benchmarks.measure import Cost
from benchmarks.sides import Result, Sides, compare


def _run(tmp_path: Path, *names: str) -> dict[str, dict[str, object]]:
    assert main([*names, "--small", "--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]) == 0
    return {name: json.loads((tmp_path / "results" / f"{name}.json").read_text("utf-8")) for name in names}


def test_text_and_pictures_on_a_few_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _run(tmp_path, "text", "bad-image")
    text = found["text"]["ours"]
    assert isinstance(text, dict) and 150 < text["rows_out"] < 200 and text["cpu_s"] > 0
    bad = found["bad-image"]
    assert bad["ours_lost"] == 0 and bad["ours"]["quarantined"] == 1  # type: ignore[index]
    printed = capsys.readouterr()
    assert "ours lost: 0" in printed.out and "Data-Juicer is not compared" in printed.err


def test_the_cached_rerun_gives_the_same_rows(tmp_path: Path) -> None:
    facts = _run(tmp_path, "bookkeeping")["bookkeeping"]
    assert facts["same_rows_again"] is True
    assert isinstance(facts["cached_rerun_percent"], float)
    assert set(facts["percent"]) == {"trace", "accounting", "cache"}  # type: ignore[call-overload]
    assert "operators" in facts["cpu_s_by_part"] or sum(facts["cpu_s_by_part"].values()) > 0  # type: ignore[attr-defined]


def test_equal_seeds_give_equal_data(tmp_path: Path) -> None:
    assert list(data.captions(50)) == list(data.captions(50)) != list(data.captions(50, seed=2))
    assert list(data.documents(20)) == list(data.documents(20))
    rows = list(data.pictures(tmp_path, 3))
    first = (tmp_path / "images" / "000002.jpg").read_bytes()
    assert rows == list(data.pictures(tmp_path, 3)) and first == (tmp_path / "images" / "000002.jpg").read_bytes()


def test_a_comparison_sees_every_kind_of_difference() -> None:
    def result(*rows: tuple[str, str]) -> Result:
        listed = [{"id": key, "text": text} for key, text in rows]
        return Result("", Cost(0, 1.0, 1.0, 0, 0.0), listed, Path())

    left = result(("a", "x"), ("b", "y"))
    assert compare(left, result(("a", "x"), ("b", "y")), name="same")["is_equal"]
    assert compare(left, result(("a", "x"), ("b", "z")), name="text")["other_text"] == 1
    assert compare(left, result(("b", "y"), ("a", "x")), name="order")["is_equal"] is False
    lost = compare(left, result(("b", "y"), ("c", "y")), name="rows")
    assert (lost["only_ours"], lost["only_theirs"], lost["examples"]["only_ours"]) == (1, 1, ["a"])


def test_two_processes_are_measured_beside_what_the_machine_can_give(tmp_path: Path) -> None:
    facts = two_processes(Sides(tmp_path), 200, rounds=1)
    assert facts["same_rows"] is True and [len(runs) for runs in facts["runs"].values()] == [1, 1]
    assert {way: len(runs) for way, runs in facts["ceiling_runs"].items()} == {"one_after_the_other": 1, "at_once": 1}
    assert all(run[0]["wall_s"] >= run[0]["cpu_s"] / 2 > 0 for run in facts["ceiling_runs"].values())
    assert facts["ceiling"]["wall_gain"] > 0 and facts["share_of_ceiling"] > 0


def test_a_size_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    assert list(data.captions(30)) == list(data.captions(40))[:30]
    whole = data.write(tmp_path / "captions_40.jsonl", data.captions(40))
    assert data.beginning(whole, 7).read_text().splitlines() == whole.read_text().splitlines()[:7]
    with patch.object(data, "_MANY_PARTS", 2):  # by several processes
        assert list(data._in_parts(list, 5, 2)) == list(range(5))


def test_names_are_checked_and_heavy_ones_wait_to_be_asked() -> None:
    with pytest.raises(SystemExit):
        main(["no-such-benchmark"])
    assert {name for name, case in CASES.items() if case.heavy} == {
        *("two-processes", "two-processes-images", "scaling", "scaling-images"),
    }


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("BETTERSYNTH_DATA_JUICER_PYTHON"), reason="needs BETTERSYNTH_DATA_JUICER_PYTHON")
def test_data_juicer_loses_rows_in_silence_where_ours_loses_none(tmp_path: Path) -> None:
    places = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work"), "--small"]
    python = os.environ["BETTERSYNTH_DATA_JUICER_PYTHON"]
    assert main(["bad-image", *places, "--data-juicer-python", python]) == 0
    facts = json.loads((tmp_path / "results" / "bad-image.json").read_text("utf-8"))
    assert facts["ours_lost"] == 0 and facts["theirs_lost_in_silence"] == facts["rows_in"] - 1
    assert facts["theirs"]["exit_code"] == 0 and facts["theirs_reported_errors"] is False
