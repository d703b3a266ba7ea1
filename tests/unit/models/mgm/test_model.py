from __future__ import annotations

import pytest
import torch
from torch import nn

from bettersynth.models.family import Example, load_family
from bettersynth.models.mgm import load
from bettersynth.models.mgm import model as model_file
from bettersynth.models.mgm.collate import collate
from bettersynth.models.mgm.generate import generate_greedy


def _example(ids, num_targets=2):
    labels = [-100] * (len(ids) - num_targets) + ids[len(ids) - num_targets :]
    return Example("k", ids, labels, (), 0)


@pytest.fixture
def mixed(tiny_model, picture):
    """One picture, none, two pictures."""
    examples = [_example([2, -200, 20, 21, 22]), _example([2, 30, 31, 32]), _example([2, -200, 40, -200, 41, 42])]
    size = tiny_model.config.image_size_aux
    pixels = [[picture(size, 1)], [], [picture(size, 2), picture(size, 3)]]
    return examples, pixels


def _batch(model, examples, pixels, **options):
    return collate(examples, pixels, tokens_per_image=model.config.tokens_per_image, **options)


def test_every_sample_sees_its_own_pictures(tiny_model, mixed):
    """In the original, a sample with two pictures shifts every later sample to a wrong one."""
    examples, pixels = mixed
    order = [2, 1, 0]
    with torch.no_grad():
        together = tiny_model.embed(_batch(tiny_model, [examples[i] for i in order], [pixels[i] for i in order]))
        for row, index in enumerate(order):
            alone = tiny_model.embed(_batch(tiny_model, [examples[index]], [pixels[index]]))[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, rtol=0, atol=1e-5)
            assert not together[row, len(alone) :].any()


def test_loss_of_a_batch_is_the_sum_of_its_samples(tiny_model, mixed):
    with torch.no_grad():
        together = tiny_model.loss(_batch(tiny_model, *mixed))
        alone = [tiny_model.loss(_batch(tiny_model, [e], [p])) for e, p in zip(*mixed, strict=True)]
    assert int(together.num_targets) == 6
    torch.testing.assert_close(together.loss_sum, sum(output.loss_sum for output in alone), rtol=1e-5, atol=1e-4)


def test_text_only_batch_runs_no_tower_but_trains(tiny_model, monkeypatch):
    family = load_family("mgm")
    named = family.trainable(tiny_model, 1)
    monkeypatch.setattr(tiny_model, "encode_images", lambda *_: pytest.fail("a tower was run"))
    output = tiny_model.loss(_batch(tiny_model, [_example([2, 30, 31, 32])], [[]]))
    output.loss_sum.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for _, parameter in named)


def test_batch_without_targets_has_zero_loss_and_gradients(tiny_model):
    load_family("mgm").trainable(tiny_model, 2)
    output = tiny_model.loss(_batch(tiny_model, [_example([2, 30, 31], 0)], [[]]))
    assert int(output.num_targets) == 0 and output.loss_sum.item() == 0.0
    output.loss_sum.backward()


def test_padding_on_the_right_changes_nothing(tiny_model):
    short, long = _example([2, 30, 31, 32]), _example([2, *range(50, 70)])
    with torch.no_grad():
        alone = tiny_model.hidden_states(tiny_model.embed(_batch(tiny_model, [short], [[]])))
        padded = tiny_model.hidden_states(tiny_model.embed(_batch(tiny_model, [short, long], [[], []])))
    torch.testing.assert_close(padded[0, :4], alone[0], rtol=0, atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, mixed):
    named = load_family("mgm").trainable(tiny_model.train(), 2)
    batch = _batch(tiny_model, *mixed)
    gradients = []
    for _ in range(2):
        tiny_model.zero_grad()
        tiny_model.loss(batch).loss_sum.backward()
        gradients.append([parameter.grad.clone() for _, parameter in named])
        tiny_model.gradient_checkpointing_enable()
    assert tiny_model.model.layers[0].gradient_checkpointing
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-6)


def test_loss_in_chunks_equals_loss_in_one(tiny_model, mixed, monkeypatch):
    named = load_family("mgm").trainable(tiny_model, 2)
    batch = _batch(tiny_model, *mixed)
    results = []
    for chunk in (2048, 4):
        monkeypatch.setattr(model_file, "LOSS_CHUNK_TARGETS", chunk)
        tiny_model.zero_grad()
        output = tiny_model.loss(batch)
        output.loss_sum.backward()
        results.append((output.loss_sum.item(), named[0][1].grad.clone()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny_model, mixed, dtype):
    exact = tiny_model.loss(_batch(tiny_model, *mixed)).loss_sum.item()
    half = load.build(tiny_model.config, tiny_model.state_dict(), dtype=dtype)
    load_family("mgm").trainable(half, 2)
    output = half.loss(_batch(half, *mixed))
    output.loss_sum.backward()
    assert output.loss_sum.dtype == torch.float32
    assert output.loss_sum.item() == pytest.approx(exact, rel=0.05)
    assert all(p.grad is None or p.grad.isfinite().all() for p in half.parameters())


def test_mixed_precision(tiny_model, mixed):
    load_family("mgm").trainable(tiny_model.train(), 1)
    exact = tiny_model.loss(_batch(tiny_model, *mixed)).loss_sum.item()
    with torch.autocast("cpu", torch.bfloat16):
        output = tiny_model.loss(_batch(tiny_model, *mixed))
    output.loss_sum.backward()
    assert output.loss_sum.item() == pytest.approx(exact, rel=0.05)


def test_frozen_parts_may_be_held_in_half_precision(tiny_model, mixed):
    batch = _batch(tiny_model, *mixed)
    exact = tiny_model.loss(batch).loss_sum.item()
    trained = load_family("mgm").trainable(tiny_model.train(), 1)
    for parameter in tiny_model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    output = tiny_model.loss(batch)
    output.loss_sum.backward()
    assert output.loss_sum.item() == pytest.approx(exact, rel=0.05)
    assert all(parameter.grad.dtype == torch.float32 for _, parameter in trained)


def test_a_cast_keeps_rotary_frequencies_exact(tiny_model):
    before = tiny_model.model.rotary_emb.inv_freq.clone()
    tiny_model.to(torch.bfloat16)
    assert tiny_model.embedding.dtype == torch.bfloat16
    assert torch.equal(tiny_model.model.rotary_emb.inv_freq, before)


def test_towers_stay_in_evaluation_mode_and_frozen(tiny_model, mixed):
    load_family("mgm").trainable(tiny_model.train(), 2)
    assert tiny_model.training and not tiny_model.model.vision_tower.training
    tiny_model.loss(_batch(tiny_model, *mixed)).loss_sum.backward()
    for name, parameter in tiny_model.named_parameters():
        assert (parameter.grad is None) == ("vision_tower" in name), name


def test_hd_mode_end_to_end(tiny_model, picture):
    config = tiny_model.config.with_fields(image_grid=2, image_global=True, image_size_aux=192)
    hd = load.build(config.check(), tiny_model.state_dict(), dtype=torch.float32)
    with torch.no_grad():
        tokens = hd.encode_images(torch.from_numpy(picture(192)).unsqueeze(0))
    assert tokens.shape == (1, 5 * 36, 64)


def test_generation_stops_each_sample_on_its_own(tiny_model):
    questions = [_example([2, 30, 31, 32], 0), _example([2, 50, 51, 52, 53, 54], 0), _example([2, 9], 0)]
    free = [
        generate_greedy(
            tiny_model, _batch(tiny_model, [q], [[]], is_left_padded=True), max_new_tokens=8, end_ids=frozenset()
        )[0].token_ids
        for q in questions
    ]
    end = free[0][2]
    wanted = [ids[: ids.index(end) + 1] if end in ids else ids for ids in free]
    batch = _batch(tiny_model, questions, [[], [], []], is_left_padded=True)
    results = generate_greedy(tiny_model, batch, max_new_tokens=8, end_ids=frozenset({end}))
    assert [result.token_ids for result in results] == wanted
    assert [result.is_ended for result in results] == [end in ids for ids in free]


def test_a_wrapper_of_peft_is_looked_into() -> None:
    layers, copy = nn.Linear(1, 1), nn.Linear(1, 1)
    wrapper = nn.Module()
    wrapper.original_module, wrapper.modules_to_save = layers, nn.ModuleDict({"mine": copy})
    wrapper.disable_adapters, wrapper.active_adapters = False, ["mine"]
    assert model_file._in_use(layers) is layers and model_file._in_use(wrapper) is copy
    wrapper.active_adapters = ["another"]
    assert model_file._in_use(wrapper) is layers
    wrapper.disable_adapters, wrapper.active_adapters = True, ["mine"]
    assert model_file._in_use(wrapper) is layers
