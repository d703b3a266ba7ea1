"""Greedy answers: prompts, ids, logits of every step, alone and in batches."""

from __future__ import annotations

import pytest
import torch

from bettersynth.core.sample import ImageRef
from bettersynth.models.family import Example, load_family
from bettersynth.models.mgm.generate import generate_greedy

_HEAD, _TAIL = "<start_of_turn>user\n<image>\n", "<end_of_turn>\n<start_of_turn>model\n"


@pytest.fixture(scope="module")
def processor(golden, model):
    return load_family("mgm").processor(
        golden.path("checkpoint"), image_aspect_ratio="pad", max_length=2048, image_root=golden.folder
    )


def _examples(cases):
    return [Example(str(i), c["input_ids"], [-100] * len(c["input_ids"]), (), 0) for i, c in enumerate(cases)]


def _generate(golden, model, processor, features, cases):
    batch = processor.collate(_examples(cases), [[] for _ in cases], is_left_padded=True)
    return generate_greedy(
        model,
        batch,
        max_new_tokens=max(case["max_new_tokens"] for case in cases),
        end_ids=frozenset({processor.tokenizer.eos_id}),
        image_tokens=features.tokens[[case["image_index_in_batch"] for case in cases]],
        keeps_logits=True,
    )


def test_question_prompts(golden, processor):
    for case in golden.json("generation.json"):
        prompt = case["prompt"]
        assert prompt.startswith(_HEAD) and prompt.endswith(_TAIL)
        example = processor.encode_question("q", prompt[len(_HEAD) : -len(_TAIL)], ImageRef("x.png"))
        assert example.input_ids == case["input_ids"]


def test_one_at_a_time(golden, model, processor, features, assert_close):
    for number, case in enumerate(golden.json("generation.json")):
        (result,) = _generate(golden, model, processor, features, [case])
        assert result.token_ids == case["generated_ids"]
        logits = torch.stack(result.step_logits)
        assert_close(logits, golden[f"gen{number}_step_logits"])
        best = logits.topk(2).values
        assert torch.allclose(best[:, 0] - best[:, 1], torch.tensor(case["top1_top2_margin_per_step"]), atol=4e-5)


def test_a_batch_gives_the_same_ids(golden, model, processor, features, assert_close):
    cases = golden.json("generation.json")
    for number, (case, result) in enumerate(
        zip(cases, _generate(golden, model, processor, features, cases), strict=True)
    ):
        assert result.token_ids == case["generated_ids"]
        assert_close(torch.stack(result.step_logits), golden[f"gen{number}_step_logits"])
