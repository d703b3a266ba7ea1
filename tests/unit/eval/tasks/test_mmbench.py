from __future__ import annotations

import csv
import sys

import pytest

from bettersynth.core.errors import DataError
from bettersynth.eval.protocol import Target
from bettersynth.eval.tasks import _xlsx, mmbench

ASK = "Answer with the option's letter from the given choices directly."


def _target(data, protocol="mmbench"):
    return Target("mmbench", protocol, data)


def _right(questions):
    return {question.key: question.meta["answer"] for question in questions}


def test_a_real_option_none_is_kept_unless_the_kits_reader_is_wished(data):
    ours = mmbench.samples(_target(data))[3]
    kits = mmbench.samples(_target(data, "mmbench@kit"))[3]
    assert mmbench.prompt(ours, "mmbench") == f"At night.\nIs it on?\nA. yes\nB. None\n{ASK}"
    assert mmbench.prompt(kits, "mmbench@kit") == f"At night.\nIs it on?\nA. yes\n{ASK}"


@pytest.mark.parametrize(
    ("cells", "answer", "kept"),
    [
        (("1", "2", "", ""), "A", ["1", "2"]),
        (("1", "None", "3", ""), "C", ["1", "None", "3"]),
        (("1", "2", "nan", "nan"), "A", ["1", "2"]),
        (("1", "2", "nan", "4"), "D", ["1", "2", "nan", "4"]),
        (("N/A", "null", "", ""), "B", ["N/A", "null"]),
    ],
)
def test_options_of_a_row(cells, answer, kept):
    row = dict(zip("ABCD", cells, strict=True), answer=answer)
    assert list(mmbench.real_options(row).values()) == kept


def test_three_ways_to_count(data):
    questions = mmbench.samples(_target(data))
    assert [q.key for q in questions] == ["1", "1000001", "2000001", "2", "1000002"]
    answers = _right(questions) | {"1000001": "dog", "2": "A.", "2000001": "cat"}
    answers["2000001"] = questions[2].meta["options"]["A"]
    by_name = {s.protocol: s for s in mmbench.evaluate(_target(data), questions, answers)}
    assert [q.score for q in by_name["mmbench-vanilla"].questions] == [1.0, 1.0]
    assert [q.score for q in by_name["mmbench-kit"].questions] == [0.0, 0.0]
    circular = by_name["mmbench-circular"].questions
    assert [q.score for q in circular] == [0.0, 1.0]
    assert circular[0].categories == ("category/ocr", "l2/FP-S")
    assert circular[1].extracted == "A | B"


def test_chance_follows_the_number_of_options(data):
    questions = mmbench.samples(_target(data))
    chances = {s.protocol: s.chance for s in mmbench.evaluate(_target(data), questions, _right(questions))}
    assert chances["mmbench-vanilla"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert chances["mmbench-circular"] == chances["mmbench-kit"] == pytest.approx((1 / 27 + 1 / 4) / 2)


def test_rotations_without_base_row_are_counted(data):
    questions = [q for q in mmbench.samples(_target(data)) if q.key != "2"]
    scoring = mmbench.evaluate(_target(data), questions, _right(questions))[1]
    assert scoring.unscored == {"no base row": ("1000002",)} and len(scoring.questions) == 1


def test_a_split_without_answers_is_not_scored(data):
    path = data / "mmbench" / "mmbench_dev_20230712.tsv"
    rows = mmbench.read_rows(path)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(
            stream, [name for name in rows[0] if name != "answer"], delimiter="\t", extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    questions = mmbench.samples(_target(data))
    with pytest.raises(DataError, match="no answers"):
        mmbench.evaluate(_target(data), questions, _right(questions))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("question\t", "query\t", "lacks a column"),
        ("1000001\t", "x\t", "damaged tsv row"),
        ("\tdev", "", "damaged tsv row"),
        ("iVBOR", "%%%", "not base64"),
    ],
)
def test_damaged_files_are_named(data, old, new, message):
    path = data / "mmbench" / "mmbench_dev_20230712.tsv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message) as caught:
        mmbench.samples(_target(data))
    assert "mmbench_dev" in caught.value.where


def test_reading_leaves_the_csv_limit_as_it_was(data):
    before = csv.field_size_limit()
    mmbench.read_rows(data / "mmbench" / "mmbench_dev_20230712.tsv")
    assert csv.field_size_limit() == before < sys.maxsize


def test_submission_has_the_kits_columns_and_stable_bytes(data, tmp_path):
    target = _target(data)
    asked = [(question, "", "=1+1\x00") for question in mmbench.samples(target)]
    (name,) = mmbench.write_kit_files(tmp_path / "a", target, asked, "m")
    mmbench.write_kit_files(tmp_path / "b", target, asked, "m")
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = _xlsx.read(tmp_path / "a" / name)
    assert list(rows[0]) == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert rows[0]["prediction"] == "=1+1" and rows[3]["B"] == "None"
    assert mmbench.score_submission([row | {"prediction": row["answer"]} for row in rows]) == 1.0
    assert mmbench.score_submission(rows) == 0.0


def test_letters_are_offered_under_the_letter_protocol_only(data):
    target = _target(data, "mmbench@letter")
    for question in mmbench.samples(target):
        assert mmbench.choices(question, "mmbench@letter") == tuple(question.meta["options"])
        assert mmbench.choices(question, "mmbench") == ()
