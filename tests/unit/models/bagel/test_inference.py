"""Contexts, text and drawing on a tiny random model: what golden numbers cannot show."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bettersynth.core.errors import ConfigError
from bettersynth.models.bagel import draw as drawing_module
from bettersynth.models.bagel.context import Context, read_text
from bettersynth.models.bagel.draw import Drawing, DrawSettings, draw, start_noise
from bettersynth.models.bagel.generate import generate_text
from bettersynth.models.bagel.interleave import Interleaver, Request
from bettersynth.models.bagel.resize import ResizeRule, on_white

RULES = (ResizeRule(12, 8, 4), ResizeRule(42, 28, 14))


def _read(model, *texts):
    context = Context()
    for ids in texts:
        read_text(model, [context], [ids])
    return context


def test_text_read_piece_by_piece_equals_text_read_with_growth(tiny_model):
    long = _read(tiny_model, range(10), *([[1, 2, 3]] * 60))  # outgrows the spare rows
    again = _read(tiny_model, range(10), *([[1, 2, 3]] * 60))
    assert long.length == 12 + 60 * 5 and long.length > 128
    assert torch.equal(long.keys[-1][: long.length], again.fork().keys[-1])


def test_answers_of_a_batch_equal_answers_alone_and_end_each_for_itself(tiny_model):
    prompts = [[1, 2], [3, 4, 5, 6], [7]]
    alone = [generate_text(tiny_model, [_read(tiny_model, p)], max_new_tokens=6, end_id=-1)[0].ids for p in prompts]
    end = alone[0][2]
    together = generate_text(tiny_model, [_read(tiny_model, p) for p in prompts], max_new_tokens=6, end_id=end)
    for ids, answer in zip(alone, together, strict=True):
        assert answer.ids == (ids[: ids.index(end)] if end in ids else ids)
        assert answer.is_ended == (end in ids)


def test_drawn_text_depends_on_its_seed(tiny_model):
    def ids(seed):
        generators = [torch.Generator().manual_seed(seed)]
        context = _read(tiny_model, [1, 2])
        options = {"max_new_tokens": 12, "end_id": -1, "temperature": 2.0}
        return generate_text(tiny_model, [context], generators=generators, **options)[0].ids

    assert ids(1) == ids(1) != ids(2)


@pytest.mark.parametrize(
    ("scale", "interval", "branches"), [(4.0, (0.0, 1.0), 2), (1.0, (0.0, 1.0), 1), (4.0, (0.9, 1.0), 1)]
)
def test_a_branch_that_repeats_another_is_not_computed(tiny_model, monkeypatch, scale, interval, branches):
    counts = []
    real = drawing_module.forward
    monkeypatch.setattr(
        drawing_module, "forward", lambda m, blocks, r: counts.append(len(blocks)) or real(m, blocks, r)
    )
    text = _read(tiny_model, [1, 2])
    picture = Drawing(2, 3, start_noise(tiny_model, 2, 3, 1), text, Context(), text.fork())
    settings = DrawSettings(num_timesteps=4, cfg_text_scale=scale, cfg_interval=interval)
    draw(tiny_model, [picture], settings)
    assert counts[-1] == branches and len(counts) == 3
    assert text.length == 4  # drawing leaves no trace


def test_pictures_depend_on_their_own_seed_only(tiny_model):
    interleaver = Interleaver(tiny_model, *RULES, settings=DrawSettings(num_timesteps=3))
    requests = [Request(segments=[[1, 2]], image_hw=(8, 12), seed=seed) for seed in (1, 2, 1)]
    first, second, third = (reply.image for reply in interleaver.answer(requests))
    assert first.shape == (8, 12, 3) and (first == third).all() and (first != second).any()
    assert abs(interleaver.answer(requests[1:2])[0].image.astype(int) - second).max() <= 1


def test_an_edit_has_the_size_of_its_picture(tiny_model):
    interleaver = Interleaver(tiny_model, *RULES, settings=DrawSettings(num_timesteps=3))
    (reply,) = interleaver.answer([Request(segments=[Image.new("RGB", (30, 20), "red"), [1]])])
    assert reply.image.shape == (8, 12, 3) and reply.ids is None


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="cfg_renorm_type"):
        DrawSettings(cfg_renorm_type="local")
    with pytest.raises(ConfigError, match="num_timesteps"):
        DrawSettings(num_timesteps=1)


def test_transparent_pictures_go_on_white():
    assert on_white(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
