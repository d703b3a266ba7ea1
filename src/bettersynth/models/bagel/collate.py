"""Samples and their pictures to the batch the model takes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.bagel.packing import NO_DROPOUT, Dropout, Sample, pack_samples, patchify
from bettersynth.models.family import Batch


def collate(
    config: BagelConfig,
    samples: Sequence[Sample],
    pixels: Sequence[Sequence[torch.Tensor]],
    *,
    seed: int,
    dropout: Dropout = NO_DROPOUT,
) -> Batch:
    """One packed batch. Dropouts, times and the noise depend on ``seed`` alone.

    Args:
        config: sizes of the model.
        samples: any mixture; none of texts, pictures to see and pictures to draw is required.
        pixels: ``pixels[i][j]`` is picture j of sample i, (3, H, W) in [-1, 1], of the size the sample says.
        seed: of everything random.
        dropout: probabilities of leaving conditions out.
    """
    pack = pack_samples(config, samples, rng=random.Random(seed), dropout=dropout)
    patch = config.vit.patch_size
    seen: list[torch.Tensor] = []
    drawn: list[torch.Tensor] = []
    for images, chosen in zip(pixels, pack.image_choice, strict=True):
        for index, kind in chosen:
            (seen if kind == "vit_image" else drawn).append(images[index])
    batch = pack.tensors()
    width = config.vit.num_channels * patch**2
    batch["packed_vit_tokens"] = torch.cat([patchify(x, patch) for x in seen]) if seen else torch.zeros(0, width)
    batch["padded_images"] = pad_images(drawn)
    batch["noise_seed"] = torch.tensor(seed)
    return batch


def pad_images(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """(3, H, W) pictures of several sizes -> (B, 3, Hmax, Wmax), zeros at the bottom and right."""
    if not images:
        return torch.zeros(0, 3, 0, 0)
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    padded = torch.zeros(len(images), 3, height, width)
    for place, image in zip(padded, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return padded
