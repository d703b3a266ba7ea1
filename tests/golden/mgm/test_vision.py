"""Towers, mining, projector, HD mode."""

from __future__ import annotations

import math

import pytest
import torch

from bettersynth.models.mgm import load
from bettersynth.models.mgm.mining import join_stages


def test_low_resolution_tower(golden, features, assert_close):
    assert_close(features.clip, golden["clip_features"])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_high_resolution_stages(golden, model, assert_close, stage):
    maps = model.model.vision_tower_aux(golden["images_aux"])
    assert_close(maps[stage], golden[f"aux_stage_{stage}"])


def test_joined_high_resolution_map_and_stage_0(golden, model, assert_close):
    wanted = golden["aux_features_sample1"]
    maps = model.model.vision_tower_aux(golden["images_aux"][1:2])
    assert_close(join_stages(maps).permute(0, 3, 1, 2), wanted)
    assert_close(maps[0], wanted[:, : maps[0].shape[1]])


@pytest.mark.parametrize("is_reference", [False, True])
@pytest.mark.parametrize(
    ("part", "name"), [("query", "mining_query"), ("attention", "mining_attention"), ("value", "mined_value")]
)
def test_mining(golden, model, assert_close, part, name, is_reference):
    model.use_reference_mining = is_reference
    try:
        got = model.encode_views(golden["images"].unsqueeze(1), golden["images_aux"])
    finally:
        model.use_reference_mining = False
    assert_close(getattr(got, part), golden[name])


def test_mining_entropy(golden, features):
    wanted = golden.json("info.json")["mining_entropy_mean"]
    attention = features.attention
    assert abs(-(attention * attention.log()).sum(-1).mean().item() - wanted) < 1e-4


def test_fused_features_and_image_tokens(golden, features, assert_close):
    assert_close(features.fused, golden["fused_features"])
    assert_close(features.tokens, golden["image_tokens"])


@pytest.mark.parametrize(("name", "is_global"), [("hd_image_tokens", True), ("hd_noglobal_image_tokens", False)])
def test_hd_mode(golden, model, assert_close, name, is_global):
    views, high = golden["hd_images"], golden["hd_images_aux"]
    grid = math.isqrt(views.shape[1] - 1)  # the set's last view is the whole picture
    config = model.config.with_fields(image_grid=grid, image_global=is_global, image_size_aux=high.shape[-1])
    hd = load.build(config, model.state_dict(), dtype=torch.float32)
    used = views if is_global else views[:, : grid * grid]
    with torch.no_grad():
        assert_close(hd.encode_views(used, high).tokens, golden[name])
