"""Packing, masks, position indexes, resize rule and learning rates: exact."""

from __future__ import annotations

import random

import pytest
import torch

from bettersynth.models.bagel.collate import collate
from bettersynth.models.bagel.packing import MODES, Dropout, PlanItem, Sample, pack_samples, unpatchify
from bettersynth.models.bagel.resize import ResizeRule
from bettersynth.models.layers.masks import Visibility
from bettersynth.models.layers.positions import patch_ids
from bettersynth.train.schedule import Schedule

_LISTS = (
    *("sample_lens", "packed_position_ids", "packed_text_ids", "packed_text_indexes", "packed_label_ids"),
    *("ce_loss_indexes", "packed_vae_token_indexes", "mse_loss_indexes", "vit_token_seqlens"),
    *("packed_vit_token_indexes", "packed_latent_position_ids", "packed_vit_position_ids", "split_lens"),
)


def sample_of(case):
    plan = tuple(PlanItem.from_json(item) for item in case["sequence_plan"])
    texts, sizes = case["text_ids"], case["image_sizes"]
    return Sample(plan, tuple(tuple(ids) for ids in texts), tuple(tuple(size) for size in sizes))


def test_packing_cases(golden):
    for case in golden.json("packing_cases.json"):
        wanted, name = case["expected"], case["name"]
        dropout = Dropout(*(case[f"{kind}_cond_dropout_prob"] for kind in ("text", "vit", "vae")))
        pack = pack_samples(golden.config, [sample_of(case)], rng=random.Random(0), dropout=dropout)
        assert pack.length == wanted["curr"], name
        for key in _LISTS:
            assert getattr(pack, key) == wanted[key], (name, key)
        assert pack.ce_loss_weights == pytest.approx(wanted["ce_loss_weights"], rel=1e-6), name
        assert [list(shape) for shape in pack.vae_latent_shapes] == wanted["vae_latent_shapes"], name
        assert [time == -float("inf") for time in pack.packed_timesteps] == wanted["timestep_is_clean"], name
        assert [MODES[mode] for mode in pack.attn_modes] == wanted["attn_modes"], name
        sees = Visibility.build(pack.sample_lens, pack.split_lens, pack.attn_modes, torch.device("cpu")).dense()
        assert sees.sum(-1).tolist() == wanted["mask_rows_allowed_counts"], name


def test_the_training_batch(golden):
    batch, meta = golden.tensors("train_batch"), golden.json("train_meta.json")
    pack = pack_samples(golden.config, [sample_of(case) for case in meta["samples"]], rng=random.Random(0))
    got = pack.tensors()
    assert [MODES[mode] for mode in pack.attn_modes] == meta["attn_modes"]
    for key, tensor in got.items():
        if key in batch and key not in ("packed_timesteps", "ce_loss_weights"):
            assert torch.equal(tensor, batch[key]), key
    assert torch.equal(got["packed_timesteps"].isinf(), batch["packed_timesteps"].isinf())
    sees = Visibility.build(pack.sample_lens, pack.split_lens, pack.attn_modes, torch.device("cpu")).dense()
    assert torch.equal(sees, batch["attention_allowed"])


def test_position_ids(golden):
    for case in golden.json("position_id_cases.json"):
        rows, cols = case["img_h"] // case["patch"], case["img_w"] // case["patch"]
        ids = patch_ids(rows, cols, case["max_per_side"], interpolate=case["mode"] == "interpolate")
        assert ids.tolist() == case["ids"], case


def test_resize_rule(golden):
    for case in golden.json("resize_cases.json"):
        rule = ResizeRule(*(case[key] for key in ("max_size", "min_size", "stride", "max_pixels")))
        assert rule.size(case["in_w"], case["in_h"], case["img_num"]) == (case["out_w"], case["out_h"]), case


def test_learning_rates(golden):
    table = golden.json("lr_schedule.json")
    for name, rates in table["lr_used_at_step"].items():
        schedule = Schedule(table["peak_lr"], table["warmup_steps"], table["total_steps"], name, table["min_lr"])
        for step, rate in enumerate(rates[: table["total_steps"] + 1]):
            assert schedule.rate(step) == pytest.approx(rate, rel=1e-6), (name, step)
        past_the_end = table["min_lr"] if name == "cosine" else table["peak_lr"]
        assert schedule.rate(table["total_steps"] + 3) == pytest.approx(past_the_end)


def test_collating_gives_the_training_batch(golden):
    config, batch, meta = golden.config, golden.tensors("train_batch"), golden.json("train_meta.json")
    samples = [sample_of(case) for case in meta["samples"]]
    vae, vit = iter(batch["padded_images"]), iter(batch["packed_vit_tokens"].split(batch["vit_token_seqlens"].tolist()))
    pixels = []
    for sample in samples:
        kinds = [item.type for item in sample.plan if item.type != "text"]
        pixels.append([])
        for kind, (height, width) in zip(kinds, sample.image_sizes, strict=True):
            patch = config.vit.patch_size
            seen = kind == "vit_image"
            pixels[-1].append(
                unpatchify(next(vit), height // patch, width // patch, patch) if seen else next(vae)[:, :height, :width]
            )
    got = collate(config, samples, pixels, seed=5)
    for key in ("packed_vit_tokens", "padded_images", "packed_text_ids", "packed_position_ids"):
        assert torch.equal(got[key], batch[key]), key
    assert torch.equal(got["packed_timesteps"], collate(config, samples, pixels, seed=5)["packed_timesteps"])
    assert not torch.equal(got["packed_timesteps"], collate(config, samples, pixels, seed=6)["packed_timesteps"])
