"""Drawing: every guidance variant, its steps, its picture, alone and in a batch."""

from __future__ import annotations

import pytest
import torch

from bettersynth.models.bagel.context import Context, read_text, read_vae_image, read_vit_image
from bettersynth.models.bagel.draw import Drawing, DrawSettings, Trace, decode, draw

FILE = "infer_image"


def settings_of(run, **changes):
    names = ("num_timesteps", "timestep_shift", "cfg_text_scale", "cfg_img_scale", "cfg_renorm_type")
    names = (*names, "cfg_renorm_min", "taylorseer")
    values = {name: run[name] for name in names if name in run}
    return DrawSettings(**{**values, "cfg_interval": tuple(run["cfg_interval"]), **changes})


def _text_context(golden, model, name):
    context = Context()
    read_text(model, [context], [golden.tensor(FILE, name).tolist()])
    return context


@pytest.fixture(scope="module")
def contexts(golden, model):
    """The three contexts of text-to-image and of editing."""
    text = _text_context(golden, model, "t2i.prompt_ids")
    source = Context()
    read_vae_image(model, source, golden.tensor(FILE, "edit.vae_image"))
    read_vit_image(model, source, golden.tensor(FILE, "edit.vit_image"))
    full = source.fork()
    read_text(model, [full], [golden.tensor(FILE, "edit.prompt_ids").tolist()])
    return {
        "t2i": (text, Context(), text),
        "edit": (full, source, _text_context(golden, model, "edit.prompt_ids")),
    }


def _drawing(model, size, noise, contexts):
    stride = model.config.latent_stride_px
    return Drawing(size[0] // stride, size[1] // stride, noise, *contexts)


def test_contexts(golden, contexts, assert_close):
    named = {"t2i.gen_ctx": 0, "edit.gen_ctx": 0, "edit.cfg_text_ctx": 1}
    for name, which in named.items():
        context = contexts[name.split(".")[0]][which]
        n = context.length
        assert [n] == golden.tensor(FILE, f"{name}.kv_len").tolist()
        assert [context.next_rope] == golden.tensor(FILE, f"{name}.rope_next").tolist()
        assert_close(context.keys[-1][:n], golden.tensor(FILE, f"{name}.k_cache_last"))
        assert_close(context.values[0][:n], golden.tensor(FILE, f"{name}.v_cache_first"))


def test_runs(golden, model, contexts, assert_close):
    wanted = golden.tensors(FILE)
    for run in golden.json("image_runs.json")["runs"]:
        name = run["name"]
        kind = name.split(".")[0]
        drawing = _drawing(model, run["image_hw"], wanted[f"{kind}.init_noise"], contexts[kind])
        trace, atol = Trace(), 1e-3 if run["taylorseer"] else 1e-4
        (latent,) = draw(model, [drawing], settings_of(run), trace)
        assert len(trace.time) == run["euler_updates"], name
        assert_close(latent, wanted[f"{name}.latent"], atol)
        assert_close(torch.tensor(trace.time), wanted[f"{name}.t_steps"])
        for part, steps in (("x", trace.x), ("v", trace.v)):
            if f"{name}.{part}_steps" in wanted:
                assert_close(torch.stack([step[0] for step in steps]), wanted[f"{name}.{part}_steps"], atol)
        if f"{name}.decoded" in wanted:
            pixels = decode(model, latent, drawing.rows, drawing.cols)
            assert_close(pixels[None], wanted[f"{name}.decoded"])


@pytest.mark.parametrize("renorm", ["channel", "global"])
def test_two_pictures_in_one_batch(golden, model, assert_close, renorm):
    run = golden.json("image_runs.json").get("batch2")
    if run is None:
        pytest.skip("image_runs.json of the golden set has no batch2")
    drawings = []
    for i, size in enumerate(run["image_hw"]):
        text = _text_context(golden, model, f"batch2.prompt_ids{i}")
        noise = golden.tensor(FILE, f"batch2.init_noise{i}")
        drawings.append(_drawing(model, size, noise, (text, Context(), text)))
    # The original takes one norm over both pictures; ours has a name of its own for that.
    kind = "batch_global" if renorm == "global" else renorm
    for i, latent in enumerate(draw(model, drawings, settings_of(run, cfg_renorm_type=kind))):
        assert_close(latent, golden.tensor(FILE, f"batch2.{renorm}.latent{i}"))


def test_a_batch_draws_what_each_picture_alone_would(model, contexts, golden, assert_close):
    run = next(run for run in golden.json("image_runs.json")["runs"] if run["name"] == "t2i.global")
    drawings = [
        _drawing(model, run["image_hw"], golden.tensor(FILE, "t2i.init_noise") * (1 + i), contexts[kind])
        for i, kind in enumerate(("t2i", "edit", "t2i"))
    ]
    together = draw(model, drawings, settings_of(run))
    for drawing, latent in zip(drawings, together, strict=True):
        assert_close(latent, draw(model, [drawing], settings_of(run))[0])
