"""Template, image tags, ids and labels. Every deliberate deviation from the original is listed by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettersynth.core.sample import Conversation, ImageRef, Segment
from bettersynth.models.family import Example, Rejected, load_family
from bettersynth.models.mgm.template import drop_leading_answer, normalise_tags, refusal, render

MODEL_MAX_LENGTH = 160
"""Of the golden set's tokenizer run, says its README."""

REJECTED = {
    "empty_answer": "empty_answer",
    "empty_answer_mid": "empty_answer",
    "ends_with_human": "ends_with_human",
    "literal_eos_in_text": "special_token_in_text",
    "literal_model_turn_in_text": "special_token_in_text",
    "two_humans_in_row": "bad_roles",
    "unknown_role": "bad_roles",
    "upper_roles": "bad_roles",
    "long_image": "too_long",
    "long_text_only": "too_long",
    "double_image_one_turn": "image_count",
    "image_in_answer": "image_in_answer",
}
"""Case -> our reason. The original masks the first five and the last text silently, stops at three, trains on the rest
with a picture counted twice or an answer beyond the limit."""


@pytest.fixture(scope="module")
def cases(golden):
    lines = golden.path("conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


@pytest.fixture(scope="module")
def processor(golden, model):
    return load_family("mgm").processor(
        golden.path("checkpoint"),
        image_aspect_ratio="pad",
        max_length=MODEL_MAX_LENGTH + model.config.tokens_per_image,
        image_root=Path(),
    )


def _turns(case):
    return [(turn["from"], turn["value"]) for turn in case["conversations"]]


def _conversation(case) -> Conversation:
    """One picture for the first tag; further tags have none, as in the original's data."""
    images = [ImageRef("one.png")] if case["has_image"] else []
    segments = []
    for number, (role, value) in enumerate(_turns(case)):
        pieces = value.split("<image>") if case["has_image"] else [value]
        for index, piece in enumerate(pieces):
            if index:
                segments.append(Segment("image", role, image=images.pop() if images else None, turn=number))
            segments.append(Segment("text", role, text=piece, is_target=role == "gpt", turn=number))
    return Conversation(case["name"], tuple(segments))


def _is_well_formed(case) -> bool:
    tags = sum(value.count("<image>") for _, value in _turns(case))
    return not case.get("error") and not case["all_masked"] and tags <= 1 and case["name"] not in REJECTED


def test_image_tags(cases):
    for case in cases:
        turns = normalise_tags(_turns(case), is_collapsing=True) if case["has_image"] else _turns(case)
        assert [value for _, value in turns] == case["values_after_image_tag_normalisation"], case["name"]


def test_well_formed_cases_agree_exactly(cases, processor):
    seen = 0
    for case in filter(_is_well_formed, cases):
        example = processor.encode(_conversation(case))
        assert isinstance(example, Example), (case["name"], example)
        assert example.input_ids == case["input_ids"], case["name"]
        assert example.labels == case["labels"], case["name"]
        assert len(example.images) == case["input_ids"].count(-200)
        seen += 1
    assert seen >= len(cases) // 2


def test_prompts_and_target_spans(cases):
    for case in filter(_is_well_formed, cases):
        turns = normalise_tags(_turns(case)) if case["has_image"] else _turns(case)
        prompt = render(drop_leading_answer(turns))
        assert prompt.text == case["prompt"], case["name"]
        if not case["name"].startswith("answer_leading"):  # there the first newline belongs to the header's token
            spans = [prompt.text[start:end] for start, end in prompt.targets]
            assert spans == case["target_spans"], case["name"]


def test_degenerate_cases_are_rejected_by_name(cases, processor):
    for case in cases:
        if _is_well_formed(case):
            continue
        result = processor.encode(_conversation(case))
        assert isinstance(result, Rejected), case["name"]
        assert result.key == case["name"] and result.detail
        if case["name"] in REJECTED:
            assert result.reason == REJECTED[case["name"]], case["name"]


def test_what_the_original_does_with_double_tags_is_known(cases, processor):
    """With collapsed tags, our template gives the original's ids and labels (-200 in labels included)."""
    from bettersynth.models.mgm.processor import tokenize_prompt

    for case in cases:
        if case["name"] not in ("double_image_one_turn", "image_in_answer", "long_image"):
            continue
        turns = normalise_tags(_turns(case), is_collapsing=True)
        assert refusal(turns) is None
        ids, labels = tokenize_prompt(processor.tokenizer, render(turns), has_images=True)
        assert (ids, labels) == (case["input_ids"], case["labels"]), case["name"]
