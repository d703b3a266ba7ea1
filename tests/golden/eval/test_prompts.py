"""Prompts, submission table and score equal the original's, byte for byte."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from bettersynth.eval.protocol import Target
from bettersynth.eval.tasks import _xlsx, mmbench, textvqa


def _lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _chat(prompt: str) -> str:
    """The conversation template around a question with a picture (the model's own part)."""
    return f"<start_of_turn>user\n<image>\n{prompt}<end_of_turn>\n<start_of_turn>model\n"


def _target(golden_part, protocol: str) -> Target:
    path = golden_part("mmbench/mmbench_tiny.tsv")
    return Target("mmbench", protocol, path.parent, path.stem)


def test_mmbench_prompts(golden_part):
    expected = _lines(golden_part("mmbench/expected_prompts.jsonl"))
    questions = mmbench.samples(_target(golden_part, "mmbench@kit"))
    assert [q.meta["index"] for q in questions] == [row["index"] for row in expected]
    for question, row in zip(questions, expected, strict=True):
        options = question.meta["options"]
        assert mmbench.question_with_options(question.text, options) == row["question_with_options"]
        assert (list(options), list(options.values())) == (row["option_char"], row["options"])
        assert _chat(mmbench.prompt(question, "mmbench@kit")) == row["full_prompt"]


def test_mmbench_prompts_of_all_rounds(golden_part):
    expected = _lines(golden_part("mmbench/expected_prompts_all_rounds_no_suffix.jsonl"))
    questions = mmbench.samples(_target(golden_part, "mmbench@kit"))
    ours = [
        (question.meta["index"], number, text, _chat(text), letters)
        for question in questions
        for number, (text, letters) in enumerate(mmbench.rounds(question))
    ]
    fields = ("index", "round_id", "question_with_options", "full_prompt", "option_char")
    assert ours == [tuple(row[name] for name in fields) for row in expected]


def test_mmbench_chinese_prompt(golden_part):
    misc = json.loads(golden_part("mmbench/misc.json").read_text(encoding="utf-8"))
    question = mmbench.samples(_target(golden_part, "mmbench@cn"))[0]
    assert _chat(mmbench.prompt(question, "mmbench@cn")) == misc["full_prompt_cn_row0"]


def test_mmbench_submission_and_kit_score(golden_part, tmp_path):
    expected = json.loads(golden_part("mmbench/expected_submission.json").read_text(encoding="utf-8"))
    answers = {str(row["index"]): row["text"] for row in _lines(golden_part("mmbench/expected_prompts.jsonl"))}
    target = _target(golden_part, "mmbench@kit")
    asked = [(question, "", answers[question.key]) for question in mmbench.samples(target)]
    (name,) = mmbench.write_kit_files(tmp_path, target, asked, "golden")
    rows = _xlsx.read(tmp_path / name)
    assert list(rows[0]) == expected["xlsx_columns"]
    assert rows == expected["rows"]
    assert f"{mmbench.score_submission(rows):.2%}" == expected["kit_score_printed"]
    kit = next(
        s for s in mmbench.evaluate(target, [q for q, _, _ in asked], answers) if "kit" in s.protocol.split("@")[0]
    )
    assert f"{sum(q.score for q in kit.questions) / len(kit.questions):.2%}" == expected["kit_score_printed"]


def test_mmbench_score_of_the_original_xlsx(golden_part):
    expected = json.loads(golden_part("mmbench/expected_submission.json").read_text(encoding="utf-8"))
    rows = _xlsx.read(golden_part("mmbench/run.xlsx"))
    assert rows == expected["rows"]
    assert f"{mmbench.score_submission(rows):.2%}" == expected["kit_score_printed"]


def test_textvqa_prompts_and_recovered_questions(golden_part, tmp_path):
    path = golden_part("textvqa/prompts.jsonl")
    rows = _lines(path)
    shutil.copy(path, tmp_path / "llava_textvqa_val_v051_ocr.jsonl")
    for row in rows:
        Image.new("RGB", (2, 2)).save(tmp_path / row["image"])
    questions = textvqa.samples(Target("textvqa", "textvqa-ocr", tmp_path))
    for question, row in zip(questions, rows, strict=True):
        assert _chat(textvqa.prompt(question, "textvqa-ocr")) == row["full_prompt"]
        if row["recover_error"] is None:
            assert textvqa.kit_question(question.text) == row["recovered_question"]
        else:
            with pytest.raises(ValueError, match="lines"):
                textvqa.kit_question(question.text)
