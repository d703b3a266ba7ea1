"""Packs of every mixture train; dense and block masks agree; frozen parts stay."""

from __future__ import annotations

import random

import pytest
import torch

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.models.bagel.collate import collate
from bettersynth.models.bagel.packing import PlanItem, Sample, pack_samples, patchify, unpatchify
from bettersynth.models.layers.attention import PackedAttention
from bettersynth.models.layers.masks import Visibility
from bettersynth.models.layers.positions import patch_ids

TEXT = Sample((PlanItem(type="text", loss=True),), ((1, 2, 3),), ())
SEE = Sample((PlanItem(type="vit_image"), PlanItem(type="text", loss=True)), ((4, 5),), ((28, 42),))
DRAW = Sample((PlanItem(type="text", enable_cfg=True), PlanItem(type="vae_image", loss=True)), ((6, 7),), ((8, 12),))
EDIT = Sample(
    (PlanItem(type="vae_image"), PlanItem(type="text"), PlanItem(type="vae_image", loss=True)),
    ((8,),),
    ((8, 8), (12, 8)),
)


def _batch(config, samples, seed=1):
    torch.manual_seed(seed)
    pixels = [[torch.randn(3, *size).clamp(-1, 1) for size in sample.image_sizes] for sample in samples]
    return collate(config, samples, pixels, seed=seed)


@pytest.mark.parametrize(
    "samples", [[TEXT], [SEE], [DRAW], [EDIT], [TEXT, TEXT], [TEXT, DRAW, SEE, EDIT]], ids=lambda s: str(len(s))
)
def test_no_kind_of_sample_is_required(tiny, tiny_model, samples):
    batch = _batch(tiny, samples)
    assert sum(sample.num_tokens(tiny) for sample in samples) == len(batch["packed_position_ids"])
    joint = tiny_model.losses(batch)
    joint.total().backward()
    assert torch.isfinite(joint.total())
    assert (joint.mean_ce() > 0) == any(s in (TEXT, SEE) for s in samples)
    assert (joint.mean_mse() > 0) == any(s in (DRAW, EDIT) for s in samples)


def test_samples_of_a_pack_do_not_see_each_other(tiny, tiny_model):
    alone = tiny_model.losses(_batch(tiny, [SEE])).ce
    first = _batch(tiny, [SEE, TEXT])
    assert torch.allclose(tiny_model.losses(first).ce[: len(alone)], alone, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_block_mask_equals_dense_mask(seed):
    rng = random.Random(seed)
    splits = [(rng.randint(1, 40), rng.randrange(3)) for _ in range(9)]
    lens = [sum(length for length, _ in splits[i : i + 3]) for i in (0, 3, 6)]
    sees = Visibility.build(lens, *zip(*splits, strict=True), torch.device("cpu"))
    dense = torch.block_diag(*(mask.float() for mask in sees.dense_per_sample())).bool()
    assert torch.equal(dense, sees.dense())
    torch.manual_seed(seed)
    q, k, v = torch.randn(sum(lens), 4, 16), torch.randn(sum(lens), 2, 16), torch.randn(sum(lens), 2, 16)
    with torch.no_grad():
        flex, sdpa = PackedAttention(sees, "flex"), PackedAttention(sees, "sdpa")
        assert flex.is_flex and not sdpa.is_flex
        assert torch.allclose(flex(0, q, k, v), sdpa(0, q, k, v), atol=1e-5)


def test_compiled_layers_are_not_compiled_anew_for_every_mixture(tiny, tiny_model):
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    for layer in tiny_model.decoder.layers:
        layer.compile(dynamic=True, backend=counter)
    mixtures = [[DRAW, SEE], [SEE, TEXT, DRAW], [EDIT, DRAW, TEXT, SEE], [DRAW, DRAW, SEE, TEXT, TEXT]]
    seen = []
    for samples in mixtures:
        tiny_model.losses(_batch(tiny, samples)).total().backward()
        seen.append(counter.frame_count)
    assert seen[0] > 0 and seen[-1] == seen[1], seen


def test_an_unknown_attention_is_refused(tiny, tiny_model):
    tiny_model.attention = "flash"
    with pytest.raises(ConfigError, match="attention"):
        tiny_model.losses(_batch(tiny, [TEXT]))


def test_a_plan_without_its_picture_and_a_picture_too_large_are_refused(tiny):
    with pytest.raises(DataError, match="more texts or pictures"):
        pack_samples(tiny, [Sample(DRAW.plan, DRAW.text_ids, ())], rng=random.Random(0))
    with pytest.raises(DataError, match="more patches"):
        pack_samples(tiny, [Sample(DRAW.plan, DRAW.text_ids, ((8, 400),))], rng=random.Random(0))
    with pytest.raises(DataError, match="unknown type of plan item"):
        PlanItem.from_json({"type": "sound"})


def test_patches_are_row_major_with_the_channel_last():
    pixels = torch.arange(3 * 4 * 6).view(3, 4, 6)
    tokens = patchify(pixels, 2)
    assert tokens[1].tolist() == [pixels[c, y, x].item() for y in (0, 1) for x in (2, 3) for c in range(3)]
    assert torch.equal(unpatchify(tokens, 2, 3, 2), pixels)


@pytest.mark.parametrize("rows", [25, 49, 50, 55, 77])
def test_stretched_positions_round_as_in_training(rows):
    exact = torch.tensor([row * 70 // rows for row in range(rows)])
    got = patch_ids(rows, 1, 70, interpolate=True) // 70
    assert got.shape == exact.shape and (got - exact).abs().max() == 1
