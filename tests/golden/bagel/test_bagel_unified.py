"""Unified generation on the golden weights: the original's pipelines, and batches equal to single answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bettersynth.infer.unified import InterleaveInferencer
from bettersynth.infer.unified_types import UnifiedRequest, parts_of, request_of
from bettersynth.models.bagel.resize import ResizeRule

FILE = "infer_pipeline"


@pytest.fixture(scope="module")
def inferencer(golden, model):
    rules = golden.json("pipeline_runs.json")["transforms"]
    return InterleaveInferencer(
        model, vae_transform=ResizeRule(**rules["vae"]), vit_transform=ResizeRule(**rules["vit"])
    )


@pytest.fixture(scope="module")
def picture(golden):
    return Image.fromarray(golden.tensor(FILE, "input_image_uint8_hwc").numpy())


def _request(golden, run, systems, picture):
    options = dict(run["kwargs"])
    wants_text = options.get("understanding_output", False)
    options.setdefault("output", "text" if wants_text else "image")
    if options.pop("think", False):
        options["think"] = tuple(systems["understanding" if wants_text else "generation"])
    options["max_think_token_n"] = options.get("max_think_token_n", 500)
    prompt = [picture if segment == "<image>" else segment for segment in run["inputs"]]
    usual = {"cfg_img_scale": 1.5, "cfg_interval": (0.4, 1.0), "cfg_renorm_type": "global"}  # the inferencer's own
    noise = None if wants_text else golden.tensor(FILE, f"{run['name']}.init_noise")
    return request_of(prompt, {**usual, **options, "noise": noise})


def _requests(golden, picture):
    spec = golden.json("pipeline_runs.json")
    return spec["runs"], [_request(golden, run, spec["system_prompt_ids"], picture) for run in spec["runs"]]


def _check(golden, run, result, assert_close):
    texts = [list(output.ids) for output in result.outputs if output.kind != "image"]
    assert texts == [output["ids"] for output in run["outputs"] if output["type"] == "text"], run["name"]
    for output in result.outputs:
        assert output.decision.how == "control"
        if output.kind == "image":
            assert_close(output.latent, golden.tensor(FILE, f"{run['name']}.latent"))
            wanted = golden.tensor(FILE, f"{run['name']}.image_uint8_hwc").numpy().astype(int)
            assert abs(np.asarray(output.image).astype(int) - wanted).max() <= 1, run["name"]


def test_the_runs_of_the_original_alone(golden, inferencer, picture, assert_close):
    for run, request in zip(*_requests(golden, picture), strict=True):
        _check(golden, run, inferencer.unified_generate(request), assert_close)


def test_the_runs_of_the_original_in_one_batch(golden, inferencer, picture, assert_close):
    runs, requests = _requests(golden, picture)
    for run, result in zip(runs, inferencer.generate_batch(requests), strict=True):
        _check(golden, run, result, assert_close)


def test_a_batch_of_all_kinds_equals_its_answers_alone(golden, inferencer, picture, assert_close):
    quick = {"num_timesteps": 4, "max_new_tokens": 5, "max_think_tokens": 3}
    prompts = [
        request_of([5, 6, 7], {**quick, "output": "image", "image_size": (64, 32)}),
        request_of([5, 6, 7], {**quick, "output": "image", "image_size": (32, 48), "think": (9, 8, 7)}),
        request_of([picture, [11, 12]], {**quick, "output": "text"}),
        request_of([picture, [11, 12]], {**quick, "output": ("text", "image", "text")}),
        request_of([1, 2, 3, 4], {**quick, "output": "learned", "max_outputs": 3, "temperature": 1.5}),
        request_of([picture], {**quick, "output": "image", "cfg_renorm_type": "channel", "cfg_interval": (0, 1)}),
    ]
    seeds = [3, 4, 5, 6, 7, 8]
    together = inferencer.generate_batch(prompts, seeds=seeds)
    for prompt, seed, result in zip(prompts, seeds, together, strict=True):
        alone = inferencer.unified_generate(prompt, seed=seed)
        assert [o.kind for o in alone.outputs] == [o.kind for o in result.outputs]
        assert [(d.kind, d.how) for d in alone.decisions] == [(d.kind, d.how) for d in result.decisions]
        for ours, theirs in zip(alone.outputs, result.outputs, strict=True):
            assert ours.ids == theirs.ids
            if ours.image is not None:
                assert ours.image.size == theirs.image.size
                assert_close(ours.latent, theirs.latent)


def test_a_dialogue_equals_reading_everything_at_once(golden, inferencer, picture, assert_close):
    quick = {"num_timesteps": 4, "max_new_tokens": 5}
    dialogue = inferencer.dialogue(**quick)
    first = dialogue.say([picture, [11, 12]], output="text")
    drawn = dialogue.say([21, 22], output="image", seed=2)
    last = dialogue.say([31, 32, 33], output="text")

    said = {"type": "text", "role": "assistant", "content": list(first.outputs[0].ids)}
    again = inferencer.unified_generate([picture, [11, 12], said, [21, 22]], output="image", seed=2, **quick)
    assert_close(drawn.outputs[0].latent, again.outputs[0].latent)
    shown = {"type": "image", "role": "assistant", "image": drawn.images[0]}
    request = UnifiedRequest(parts=parts_of([picture, [11, 12], said, [21, 22], shown, [31, 32, 33]]), output="learned")
    whole = inferencer.unified_generate(request, max_outputs=1, **quick)  # learned: reads pictures as latents too
    if whole.outputs[0].kind == "text":
        assert whole.outputs[0].ids == last.outputs[0].ids
    assert dialogue.memory.is_whole and len(dialogue.memory.parts) == 7


def test_seeds_are_per_item_and_pictures_of_one_answer_differ(inferencer):
    options = {"num_timesteps": 3, "image_size": (32, 32), "output": ("image", "image")}
    one, two, three = inferencer.generate_batch([[1, 2]] * 3, seeds=[1, 1, 2], **options)
    assert torch.equal(one.outputs[0].latent, two.outputs[0].latent)
    assert not torch.allclose(one.outputs[0].latent, three.outputs[0].latent)
    assert not torch.allclose(one.outputs[0].latent, one.outputs[1].latent)


def test_the_cache_is_neither_copied_nor_grown_by_steps(inferencer, monkeypatch):
    from bettersynth.models.bagel.context import Context

    forks = []
    real = Context.fork
    monkeypatch.setattr(Context, "fork", lambda self: forks.append(1) or real(self))
    for steps in (3, 9):
        inferencer.unified_generate([1, 2, 3], output="image", image_size=(32, 32), num_timesteps=steps)
    assert len(forks) == 4  # two per request, whatever the steps
