"""POPE and GQA: official files in, official scores out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettersynth.core.errors import DataError
from bettersynth.eval.protocol import Target, task_module
from bettersynth.eval.runner import ask, open_target
from bettersynth.eval.tasks import _blind


def evaluate(data: Path, protocol: str, answers: dict[str, str]):
    asked = ask(open_target(protocol, data))
    return {s.protocol: s for s in task_module(asked.target.task).evaluate(asked.target, asked.questions, answers)}


POPE = {
    "random/1": "Yes, there is.",
    "random/2": "There is no cat",
    "random/3": "No.",
    "popular/1": "yes",
    "popular/2": "",
}


def test_pope_counts_as_its_scorer(data: Path):
    found = evaluate(data, "pope", POPE)
    accuracy, f1 = found["pope"], found["pope-f1"]
    assert [score.extracted for score in accuracy.questions] == ["yes", "no", "no", "yes", "yes"]
    assert [score.score for score in accuracy.questions] == [1, 1, 0, 0, 0]
    # TP 1, FP 2, FN 1: precision 1/3, recall 1/2, F1 2/5.
    facts = {name: round(value, 4) for name, value in accuracy.facts.items()}
    assert facts["precision"] == 33.3333 and facts["recall"] == 50 and facts["f1"] == 40 and facts["yes_ratio"] == 60
    assert facts["random/f1"] == 66.6667 and facts["popular/f1"] == 0
    assert sum(s.score * s.weight for s in f1.questions) / sum(s.weight for s in f1.questions) == pytest.approx(0.4)
    assert f1.is_ratio and accuracy.chance == 0.6 and f1.chance == pytest.approx(2 * 0.4 / 1.4)
    assert accuracy.questions[0].cluster == accuracy.questions[4].cluster == "COCO_0.jpg"


def test_pope_asks_all_kinds_or_one_file(data: Path):
    assert len(ask(open_target("pope", data)).questions) == 5
    one = ask(open_target("pope", data / "pope" / "coco_pope_popular.json"))
    assert [question.key for question in one.questions] == ["popular/1", "popular/2"]
    prompts = ask(open_target("pope@bare", data)).prompts
    assert prompts["random/1"] == "Is there a dog in the image?"
    (data / "pope" / "coco").mkdir()
    for kind in ("random", "popular"):
        name = f"coco_pope_{kind}.json"
        (data / "pope" / name).rename(data / "pope" / "coco" / name)
    assert len(ask(open_target("pope", data)).questions) == 5


def test_pope_refuses_what_it_cannot_score(data: Path):
    path = data / "pope" / "coco_pope_random.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"yes"', '"maybe"'), encoding="utf-8")
    with pytest.raises(DataError, match="neither yes nor no"):
        ask(open_target("pope", data))
    with pytest.raises(DataError, match="POPE question file"):
        ask(Target("pope", "pope", data / "textvqa"))


def test_pope_writes_the_official_answer_files(data: Path, tmp_path: Path):
    asked = ask(open_target("pope", data))
    triples = [(q, asked.prompts[q.key], POPE[q.key]) for q in asked.questions]
    names = task_module("pope").write_kit_files(tmp_path, asked.target, triples, "m")
    lines = [json.loads(line) for line in (tmp_path / names[0]).read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"question": "Is there a dog in the image?", "answer": "Yes, there is."} and len(names) == 2


GQA = {"1": "Red.", "2": "yes", "3": "yes", "4": "green"}


def test_gqa_counts_as_its_scorer(data: Path):
    found = evaluate(data, "gqa", GQA)["gqa"]
    assert {score.question_id: score.score for score in found.questions} == {"1": 1, "2": 1, "4": 0}
    assert found.questions[0].categories[:2] == ("answer/open", "structural/query")
    assert "steps/1" in found.questions[0].categories and "length/05 words" in found.questions[0].categories
    assert found.questions[1].categories[0] == "answer/binary" and "semantic/attribute" in found.questions[1].categories
    # Question 1 is right and entails 2 (right) and 3 (wrong); 2 entails nothing.
    assert found.facts["consistency"] == 50
    assert found.facts["validity"] == 100 and found.facts["plausibility"] == pytest.approx(200 / 3)
    # In the group "colour" red was given once of once, blue never of once: (0 + 1) / 100.
    assert found.facts["distribution (lower is better)"] == pytest.approx(0.01)


def test_gqa_without_choices_and_with_damaged_files(data: Path, tmp_path: Path):
    (data / "gqa" / "testdev_choices.json").unlink()
    found = evaluate(data, "gqa", GQA)["gqa"]
    assert "validity" not in found.facts and "consistency" in found.facts
    asked = ask(open_target("gqa", data))
    triples = [(q, asked.prompts[q.key], GQA[q.key]) for q in asked.questions]
    name = task_module("gqa").write_kit_files(tmp_path, asked.target, triples, "m")[0]
    assert name == "testdev_balanced_predictions.json"
    assert json.loads((tmp_path / name).read_text(encoding="utf-8"))[0] == {"questionId": "1", "prediction": "red"}
    path = data / "gqa" / "testdev_balanced_questions.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["4"]["imageId"]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match="lacks a field"):
        ask(open_target("gqa", data))
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="not a JSON object"):
        ask(open_target("gqa", data))


def test_blind_answers():
    assert _blind.blind_accuracy(["yes"] * 3 + ["no"], ["is"] * 4) == 0.75
    assert _blind.blind_accuracy(["red", "red", "3", "3", "3"], ["c", "c", "n", "n", "n"]) == 1.0
    assert _blind.blind_accuracy(["a"], ["x"]) == 1.0
