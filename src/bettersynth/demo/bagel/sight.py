"""Teach the tiny BAGEL's vision encoder what each of its tokens shows, before anything else is trained.

The full-size model starts from a SigLIP encoder that has seen the world; without such a start the tiny one learns
colours and places from captions, but no kinds. Dense labels of single patches, read out by throw-away linear layers,
teach it in minutes; some pictures have their colour channels exchanged, so that a kind is known in any colour.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bettersynth.core.seed import derive_seed
from bettersynth.demo.bagel.start import PATCH_PX, SIDE
from bettersynth.demo.bases.vision_data import (
    NUM_PATCHES,
    READING,
    DenseHeads,
    dense_accuracy,
    dense_batches,
    dense_loss,
    optimiser,
    schedule,
    start_values,
    step_optimiser,
)
from bettersynth.demo.world.vocab import Vocabulary
from bettersynth.media.resize import CLIP_MEAN, CLIP_STD
from bettersynth.models.bagel.vision import VitEncoder

BATCH, PEAK_LR, RECOLOURED = 32, 2e-3, 0.5


def patches_of(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Pictures normalised as CLIP's -> (B x 36, 16 x 16 x 3) patches in [-1, 1], channel last."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (x_BCHW * deviation + mean) * 2 - 1
    cut = pixels.unflatten(3, (SIDE, PATCH_PX)).unflatten(2, (SIDE, PATCH_PX))  # B C rows PX columns PX
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, PATCH_PX * PATCH_PX * 3)


def features(encoder: VitEncoder, x_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, 36, C) tokens of whole pictures."""
    count = len(x_BCHW)
    places = torch.arange(NUM_PATCHES).repeat(count)
    return encoder(patches_of(x_BCHW), places, [NUM_PATCHES] * count).unflatten(0, (count, NUM_PATCHES))


def train_sight(
    encoder: VitEncoder, *, steps: int, seed: int, tell: Callable[[int, float], None] | None = None
) -> DenseHeads:
    """Train the encoder in place; returns the read-outs, which nothing else uses."""
    noise = torch.Generator().manual_seed(derive_seed(seed, "demo-bagel-sight"))
    heads = DenseHeads(encoder.post_layernorm.weight.shape[0], READING)
    for module in (encoder, heads):
        start_values(module, noise)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optim = optimiser(parameters)
    for step, (x_BCHW, labels_BHP) in enumerate(dense_batches(seed, BATCH, steps, RECOLOURED)):
        loss = dense_loss(heads(features(encoder, x_BCHW)), labels_BHP)
        step_optimiser(optim, loss, schedule(step, steps, PEAK_LR))
        if tell is not None:
            tell(step, float(loss.detach()))
    return heads


def sight_accuracy(encoder: VitEncoder, heads: nn.Module, vocab: Vocabulary) -> dict[str, float]:
    """Share of right patches by what is asked of them, on held-out pictures of a vocabulary."""
    return dense_accuracy(lambda x_BCHW: heads(features(encoder, x_BCHW)), vocab)
