"""ScienceQA and MMMU: official files in, official scores out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettersynth.core.errors import DataError
from bettersynth.eval.metrics.open_answer import matches, read_open, score
from bettersynth.eval.protocol import resolve, task_module
from bettersynth.eval.runner import ask, open_target
from bettersynth.eval.tasks.mmmu import read_letter


def evaluate(data: Path, protocol: str, answers: dict[str, str]):
    asked = ask(open_target(protocol, data))
    return {s.protocol: s for s in task_module(asked.target.task).evaluate(asked.target, asked.questions, answers)}


def test_scienceqa_groups_and_letters(data: Path):
    found = evaluate(data, "scienceqa", {"4": "B. sun", "7": "The answer is A.", "9": "perhaps D"})["scienceqa"]
    assert [(s.extracted, s.score) for s in found.questions] == [("B", 1), ("A", 1), ("", 0)]
    groups = [set(s.categories) for s in found.questions]
    assert groups[0] == {"group/NAT", "group/TXT", "group/IMG", "group/G1-6", "topic/physics"}
    assert groups[1] == {"group/SOC", "group/TXT", "group/G7-12", "topic/geography"}
    assert groups[2] == {"group/LAN", "group/NO", "group/G7-12", "topic/writing"}
    assert found.chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3)
    # "E" is a letter but not one of two options.
    assert evaluate(data, "scienceqa", {"4": "E", "7": "E", "9": "E"})["scienceqa"].questions[1].extracted == ""


def test_scienceqa_asks_a_split_or_only_pictures(data: Path):
    asked = ask(open_target("scienceqa", data))
    assert [q.image is None for q in asked.questions] == [False, True, True]
    assert asked.prompts["9"].startswith("Context: N/A\nQuestion: Which word?\nOptions: (A) a (B) b")
    assert "never shown" not in "".join(asked.prompts.values())
    assert [q.key for q in ask(open_target("scienceqa-img", data)).questions] == ["4"]
    assert [q.key for q in ask(open_target("scienceqa", data / "scienceqa" / "val")).questions] == ["2"]
    assert len(ask(open_target("scienceqa", data / "scienceqa" / "problems.json")).questions) == 3
    assert resolve(["scienceqa"]) == [("scienceqa", "scienceqa")]
    letters = task_module("scienceqa").choices(asked.questions[0], "scienceqa@letter")
    assert letters == ("A", "B", "C") and task_module("scienceqa").choices(asked.questions[0], "scienceqa") == ()


def test_scienceqa_refuses_damaged_files(data: Path, tmp_path: Path):
    asked = ask(open_target("scienceqa", data))
    triples = [(q, "p", text) for q, text in zip(asked.questions, ("B", "?", "D. x"), strict=True)]
    name = task_module("scienceqa").write_kit_files(tmp_path, asked.target, triples, "m")[0]
    assert json.loads((tmp_path / name).read_text(encoding="utf-8"))["results"] == {"4": 1, "7": -1, "9": 3}
    with pytest.raises(DataError, match="no such split"):
        ask(open_target("scienceqa", data / "scienceqa" / "tset"))
    path = data / "scienceqa" / "problems.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"7": document["7"] | {"answer": 5}}), encoding="utf-8")
    with pytest.raises(DataError, match="damaged problem"):
        ask(open_target("scienceqa", data))
    path.write_text(json.dumps({key: value for key, value in document.items() if key != "9"}), encoding="utf-8")
    with pytest.raises(DataError, match="not there"):
        ask(open_target("scienceqa", data))


A1, A2, T1 = "validation_Accounting_1", "validation_Accounting_2", "validation_Art_Theory_1"


def test_mmmu_counts_as_its_scorer(data: Path):
    found = evaluate(data, "mmmu", {A1: "I would say (B).", A2: "no idea", T1: "The year is about 1600"})
    strict, guessed = found["mmmu-strict"], found["mmmu"]
    assert [(s.extracted, s.score) for s in strict.questions[:2]] == [("B", 1), ("", 0)]
    assert strict.questions[2].score == 1 and guessed.questions[1].extracted in ("A", "B")
    assert strict.chance == pytest.approx((1 / 3 + 1 / 2) / 3) and strict.facts["unreadable answers"] == pytest.approx(
        100 / 3
    )
    names = set(strict.questions[1].categories)
    assert {"domain/Business", "subject/Accounting", "pictures/several", "question_type/multiple-choice"} <= names
    assert {"domain/Art and Design", "subject/Art_Theory", "question_type/open"} <= set(strict.questions[2].categories)
    again = evaluate(data, "mmmu", {A1: "", A2: "no idea", T1: ""})["mmmu"]
    assert again.questions[1].extracted == guessed.questions[1].extracted  # the same guess every time


def test_mmmu_prompts_and_files(data: Path, tmp_path: Path):
    asked = ask(open_target("mmmu", data))
    choose = "Answer with the option's letter from the given choices directly."
    assert asked.prompts[A1] == f"<image 1> What tax?\n(A) $6\n(B) Ann's $7\n(C) $8\n\n{choose}"
    assert asked.prompts[T1] == "Year of <image 1>?\nAnswer the question using a single word or phrase."
    assert asked.questions[0].image.startswith(b"\x89PNG") and asked.questions[2].meta["answers"] == ("1,600", "1600")
    triples = [(q, "p", text) for q, text in zip(asked.questions, ("b B", "A.", "it is\n 16"), strict=True)]
    name = task_module("mmmu").write_kit_files(tmp_path, asked.target, triples, "m")[0]
    written = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    assert written == {A1: "B", A2: "A", T1: "it is 16"}
    one = data / "mmmu" / "Accounting" / "validation-00000-of-00001.parquet"
    assert len(ask(open_target("mmmu", one)).questions) == 2
    one.write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match="damaged parquet"):
        ask(open_target("mmmu", data))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("(C), not (A)", "A"),
        ("B or C", "C"),
        ("'D'.", "D"),
        ("I think that it must be the red car", "B"),
        ("red car", ""),
        ("", ""),
        ("Ab", ""),
    ],
)
def test_letters_as_the_official_parser_reads_them(text: str, letter: str):
    assert read_letter(text, {"A": "bus", "B": "Red car", "C": "train", "D": "ship"}) == letter


@pytest.mark.parametrize(
    ("text", "answers", "is_right"),
    [
        ("12", ["12.0"], True),
        ("x = 1,234.567", ["1234.57"], True),
        ("So the result is 3e2", ["300"], True),
        ("the red one", ["red"], True),
        ("banana", ["a"], False),
        ("it is a", ["a"], True),
        ("it is ab", ["a"], False),  # a lone letter must have a space beside it
        ("12", ["13", "12"], True),
        ("", ["1"], False),
    ],
)
def test_open_answers(text: str, answers: list[str], is_right: bool):
    assert matches(read_open(text), answers) is is_right
    assert score(text, answers) == float(is_right)
