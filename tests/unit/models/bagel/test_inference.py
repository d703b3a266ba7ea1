"""Contexts, text and drawing on a tiny random model: what golden numbers cannot show."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bettersynth.core.errors import ConfigError
from bettersynth.models.bagel import draw as drawing_module
from bettersynth.models.bagel.context import Context, read_text
from bettersynth.models.bagel.draw import Drawing, DrawSettings, draw, start_noise
from bettersynth.models.bagel.generate import Sampling, generate_text
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
        options = {"max_new_tokens": 12, "end_id": -1, "sampling": Sampling(2.0)}
        return generate_text(tiny_model, [context], generators=generators, **options)[0].ids

    assert ids(1) == ids(1) != ids(2)


def test_only_the_likeliest_tokens_that_reach_top_p_are_drawn(tiny_model):
    logits = torch.tensor([0.2, 0.5, 0.05, 0.25]).log()
    generator = torch.Generator().manual_seed(0)
    for top_p, allowed in ((0.5, {1}), (0.6, {1, 3}), (0.9, {0, 1, 3}), (1.0, {0, 1, 2, 3})):
        assert {Sampling(1.0, top_p).choose(logits, generator) for _ in range(300)} == allowed
    assert {Sampling(0.0, 0.9).choose(logits, generator) for _ in range(9)} == {1}
    generators = [torch.Generator().manual_seed(1)]
    narrow = {"sampling": Sampling(2.0, 1e-6), "generators": generators}
    greedy, drawn = (
        generate_text(tiny_model, [_read(tiny_model, [1, 2])], max_new_tokens=6, end_id=-1, **options)[0].ids
        for options in ({}, narrow)
    )
    assert greedy == drawn


def test_an_answer_that_is_over_is_not_continued(tiny_model):
    prompts = [[1, 2], [3, 4, 5, 6]]
    contexts = [_read(tiny_model, prompt) for prompt in prompts]
    asked = []
    answers = generate_text(
        tiny_model,
        contexts,
        max_new_tokens=6,
        end_id=-1,
        is_over=lambda number, ids: asked.append((number, len(ids))) or (number == 0 and len(ids) == 2),
    )
    assert [len(answer.ids) for answer in answers] == [2, 6] and (0, 3) not in asked
    assert not answers[0].is_ended


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


def test_a_drawing_goes_on_from_what_it_is_at_a_later_time(tiny_model):
    text, settings = _read(tiny_model, [1, 2]), DrawSettings(num_timesteps=6, cfg_interval=(0.0, 1.0))
    whole = Drawing(2, 3, start_noise(tiny_model, 2, 3, 1), text, Context(), text.fork())
    trace = drawing_module.Trace()
    expected = draw(tiny_model, [whole], settings, trace)[0]
    later = Drawing(2, 3, trace.x[2][0], text, Context(), text.fork())
    assert torch.equal(draw(tiny_model, [later], settings, skip=2)[0], expected)
    assert not torch.allclose(draw(tiny_model, [later], settings, skip=3)[0], expected)


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
