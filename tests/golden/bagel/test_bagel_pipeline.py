"""From a picture and prompts to texts and pictures, through all contexts."""

from __future__ import annotations

import pytest
from PIL import Image

from bettersynth.models.bagel.draw import DrawSettings
from bettersynth.models.bagel.interleave import Interleaver, Request
from bettersynth.models.bagel.resize import ResizeRule, to_pixels

FILE = "infer_pipeline"
_SETTINGS = (
    *("cfg_text_scale", "cfg_img_scale", "cfg_renorm_type", "cfg_renorm_min", "num_timesteps", "timestep_shift"),
)


@pytest.fixture(scope="module")
def picture(golden):
    return Image.fromarray(golden.tensor(FILE, "input_image_uint8_hwc").numpy())


@pytest.fixture(scope="module")
def rules(golden):
    return {name: ResizeRule(**rule) for name, rule in golden.json("pipeline_runs.json")["transforms"].items()}


def _request(golden, run, systems, picture):
    kwargs = run["kwargs"]
    wants_text = kwargs.get("understanding_output", False)
    system = systems["understanding" if wants_text else "generation"] if kwargs.get("think") else None
    return Request(
        segments=[picture if segment == "<image>" else segment for segment in run["inputs"]],
        wants_text=wants_text,
        think_ids=system,
        image_hw=kwargs.get("image_shapes"),
        max_new_tokens=kwargs.get("max_think_token_n", 500) - 1,
        noise=None if wants_text else golden.tensor(FILE, f"{run['name']}.init_noise"),
    )


def _settings(kwargs):
    given = {name: kwargs[name] for name in _SETTINGS if name in kwargs}
    return DrawSettings(**given, cfg_interval=tuple(kwargs.get("cfg_interval", (0.4, 1.0))))


def _check(golden, run, reply, assert_close):
    texts = [output["ids"] for output in run["outputs"] if output["type"] == "text"]
    assert ([] if reply.ids is None else [reply.ids]) == texts, run["name"]
    if reply.image is not None:
        assert_close(reply.latent, golden.tensor(FILE, f"{run['name']}.latent"))
        wanted = golden.tensor(FILE, f"{run['name']}.image_uint8_hwc").numpy().astype(int)
        difference = abs(reply.image.astype(int) - wanted)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01, run["name"]


def test_input_tensors(golden, picture, rules, assert_close):
    resized = rules["vae"].apply(picture)
    assert_close(to_pixels(rules["vae"].apply(resized)), golden.tensor(FILE, "vae_input_tensor"), atol=1e-6)
    assert_close(to_pixels(rules["vit"].apply(resized)), golden.tensor(FILE, "vit_input_tensor"), atol=1e-6)


def test_runs(golden, model, picture, rules, assert_close):
    spec = golden.json("pipeline_runs.json")
    interleaver = Interleaver(model, rules["vae"], rules["vit"])
    for run in spec["runs"]:
        request = _request(golden, run, spec["system_prompt_ids"], picture)
        (reply,) = interleaver.answer([request], _settings(run["kwargs"]))
        _check(golden, run, reply, assert_close)


def test_requests_of_different_kinds_together(golden, model, picture, rules, assert_close):
    spec = golden.json("pipeline_runs.json")
    runs = [run for run in spec["runs"] if run["name"] in ("t2i", "t2i_think", "understand")]
    if len(runs) < 3:
        pytest.skip("pipeline_runs.json of the golden set lacks one of t2i, t2i_think, understand")
    if _settings(runs[0]["kwargs"]) != _settings(runs[1]["kwargs"]):
        pytest.skip("t2i and t2i_think of the golden set are drawn with different settings")
    requests = [_request(golden, run, spec["system_prompt_ids"], picture) for run in runs]
    interleaver = Interleaver(model, rules["vae"], rules["vit"])
    for run, reply in zip(runs, interleaver.answer(requests, _settings(runs[0]["kwargs"])), strict=True):
        _check(golden, run, reply, assert_close)
