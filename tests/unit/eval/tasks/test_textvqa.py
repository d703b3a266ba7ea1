from __future__ import annotations

import json

import pytest

from bettersynth.core.errors import DataError
from bettersynth.eval.protocol import Target
from bettersynth.eval.tasks import textvqa
from bettersynth.eval.tasks.textvqa import AskedText, blind_accuracy, take_apart

ASK = "Answer the question using a single word or phrase."


def _target(data, protocol="textvqa-ocr"):
    return Target("textvqa", protocol, data)


def test_both_protocols_ask_the_same_questions_with_and_without_hints(data):
    questions = textvqa.samples(_target(data))
    assert [q.key for q in questions] == ["p0", "p0#2", "p1"]
    assert textvqa.prompt(questions[1], "textvqa-ocr") == f"Which number?\nReference OCR token: STOP, 7\n{ASK}"
    assert textvqa.prompt(questions[1], "textvqa-noocr") == f"Which number?\n{ASK}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"q?\n{ASK}", AskedText("q?", None, ASK)),
        (f"q?\nReference OCR token: \n{ASK}", AskedText("q?", "Reference OCR token: ", ASK)),
        (f"Reference OCR token: 7\nq?\n{ASK}", AskedText("q?", "Reference OCR token: 7", ASK)),
        (f"q\nReference OCR token: a\nb\n{ASK}", AskedText("q", "Reference OCR token: a\nb", ASK)),
        (f"two\nlines?\n{ASK}", AskedText("two\nlines?", None, ASK)),
        ("bare", AskedText("bare", None, "")),
        ("OCR tokens: a Question: q? Short answer:", AskedText("q?", "OCR tokens: a ", "")),
    ],
)
def test_any_prompt_comes_apart(text, parts):
    assert take_apart(text) == parts


def test_prompts_without_hint_are_the_same_in_both_protocols_and_old_ones_lose_theirs(data):
    path = data / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["text"] = "OCR tokens: a, b Question: what? Short answer:"
    rows[1]["text"] = f"what?\n{ASK}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, _ = textvqa.samples(_target(data))
    assert textvqa.prompt(first, "textvqa-noocr") == "Question: what? Short answer:"
    assert textvqa.prompt(second, "textvqa-noocr") == second.text


def test_scores_and_categories(data):
    questions = textvqa.samples(_target(data))
    (scoring,) = textvqa.evaluate(_target(data), questions, {"p0": "Stop.", "p0#2": "seven", "p1": "stop"})
    assert [q.score for q in scoring.questions] == [1.0, 1.0, 0.0]
    assert scoring.questions[1].extracted == "7" and scoring.unscored == {}
    assert [q.cluster for q in scoring.questions] == ["p0", "p0", "p1"]


def test_questions_without_annotation_are_counted(data):
    path = data / "textvqa" / "TextVQA_0.5.1_val.json"
    document = json.loads(path.read_text())
    document["data"] = document["data"][1:]
    path.write_text(json.dumps(document))
    questions = textvqa.samples(_target(data))
    (scoring,) = textvqa.evaluate(_target(data), questions, dict.fromkeys(("p0", "p0#2", "p1"), "x"))
    assert scoring.unscored == {"no annotation": ("p0",)} and len(scoring.questions) == 2


def test_twice_the_same_question_uses_both_annotations(data):
    path = data / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], rows[0]]) + "\n")
    annotation = data / "textvqa" / "TextVQA_0.5.1_val.json"
    same = {"image_id": "p0", "question": "What does the sign say?"}
    entries = [same | {"answers": ["stop"] * 10}, same | {"answers": ["go"] * 10}]
    annotation.write_text(json.dumps({"data": entries}))
    questions = textvqa.samples(_target(data))
    (scoring,) = textvqa.evaluate(_target(data), questions, {"p0": "stop", "p0#2": "go"})
    assert [q.score for q in scoring.questions] == [1.0, 1.0]


def _damage(path, how):
    text = path.read_text()
    path.write_text(
        {"cut": text[:-20], "field": text.replace('"text"', '"txt"', 1), "type": text.replace('"p0.png"', "[]", 1)}[how]
    )


@pytest.mark.parametrize(
    ("how", "message"), [("cut", "not valid JSON"), ("field", "lacks a field"), ("type", "wrong type")]
)
def test_damaged_question_lines_are_named(data, how, message):
    _damage(data / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl", how)
    with pytest.raises(DataError, match=message) as caught:
        textvqa.samples(_target(data))
    assert ".jsonl:" in caught.value.where


def test_missing_files_say_what_is_missing(data):
    (data / "textvqa" / "train_images" / "p1.png").unlink()
    with pytest.raises(DataError, match="1 picture is missing") as caught:
        textvqa.samples(_target(data))
    assert "p1.png" in caught.value.got
    (data / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl").unlink()
    with pytest.raises(DataError, match="no TextVQA question file"):
        textvqa.samples(_target(data))
    with pytest.raises(DataError, match="no evaluation folder"):
        textvqa.samples(_target(data / "nowhere"))


def test_no_annotation_file_and_a_damaged_one(data):
    questions = textvqa.samples(_target(data))
    path = data / "textvqa" / "TextVQA_0.5.1_val.json"
    path.write_text('{"data": [{"image_id": 1}]}')
    with pytest.raises(DataError, match="damaged annotation file"):
        textvqa.evaluate(_target(data), questions, {})
    path.unlink()
    with pytest.raises(DataError, match="no TextVQA annotation file"):
        textvqa.evaluate(_target(data), questions, {})


def test_a_file_without_hints_is_no_ocr_benchmark(data):
    path = data / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["text"] = f"q?\n{ASK}"
    path.rename(path.with_name("llava_textvqa_val_v051.jsonl"))
    path.with_name("llava_textvqa_val_v051.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(textvqa.samples(_target(data, "textvqa-noocr"))) == 3
    with pytest.raises(DataError):
        textvqa.samples(_target(data))


def test_blind_accuracy_is_the_better_blind_guess():
    ten = {word: [word] * 10 for word in ("red", "blue", "dog", "cat")}
    answers = [ten[word] for word in ("red", "red", "blue", "dog", "dog", "dog", "cat")]
    assert blind_accuracy(answers, ["same"] * 7) == pytest.approx(3 / 7)
    texts = ["colour?"] * 3 + ["animal?"] * 4
    # red, red: the other two leave red and blue tied, blue wins by name; dog is right three times; blue sees red.
    assert blind_accuracy(answers, texts) == pytest.approx(3 / 7)
    more = [ten["red"]] * 3 + [ten["dog"]] * 3
    assert blind_accuracy(more, ["colour?"] * 3 + ["animal?"] * 3) == 1.0
    assert blind_accuracy(more, [f"unique {n}?" for n in range(6)]) == 0.5
