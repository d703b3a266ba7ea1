"""TextVQA accuracy equals the original evaluator's on the golden cases."""

from __future__ import annotations

import json

import pytest

from bettersynth.eval.metrics.vqa_accuracy import normalise, score


def test_every_case_has_the_original_normalisation_and_accuracy(golden_part):
    cases = [json.loads(line) for line in golden_part("m4c_cases.jsonl").read_text(encoding="utf-8").splitlines()]
    assert cases
    for case in cases:
        assert normalise(case["pred"]) == case["pred_normalised"], case["pred"]
        assert [normalise(answer) for answer in case["answers"]] == case["answers_normalised"], case["answers"]
        assert score(case["pred"], case["answers"]) == pytest.approx(case["accuracy"], abs=1e-9), case["pred"]
