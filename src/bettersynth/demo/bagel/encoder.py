"""The tiny autoencoder's encoder in closed form: principal components of 8 x 8 px squares in the FLUX-style network.

Residual branches are zero, so blocks pass their input on; the strided convolutions gather 2 x 2 positions each and keep
the components with the most variance. Two things stand between them and the latents and are made linear on purpose:

* the last group norm: every group is (z, -z, C, -C) with C far above z, so its mean is 0 and its deviation that of C;
* the last swish: swish(x) - swish(-x) = x.

Nothing is trained, so the latents never change: a decoder, and a language model on the latents, can be trained apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from bettersynth.models.bagel.autoencoder import AttentionBlock, AutoEncoder, Encoder, ResidualBlock
from bettersynth.models.bagel.config import VaeConfig

SIZES = VaeConfig(ch=32, ch_mult=(1, 1, 2, 4), num_res_blocks=1, z_channels=16, scale_factor=1.0, shift_factor=0.0)
_STAGE_1, _STAGE_2 = 12, 32
"""Channels after the first and second gathering: 2 x 2 x 3 exactly, then 32 components of 4 x 4 x 3 = 48 numbers."""
_CONSTANT = 200.0
LOG_VARIANCE = -7.0
_WHITENING = 0.5
"""Share of whitening: components keep the square root of their deviation, so that shapes weigh more than noise."""


@dataclass(frozen=True)
class Components:
    """Two linear steps with their offsets: 48 numbers of 4 x 4 px to 32, and 4 x 32 of 8 x 8 px to the latents."""

    first: torch.Tensor
    first_offset: torch.Tensor
    second: torch.Tensor
    second_offset: torch.Tensor


def gather(x_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, 4 C, H/2, W/2): position (row, column) of each 2 x 2 square outermost."""
    parts = [x_BCHW[:, :, row::2, col::2] for row in (0, 1) for col in (0, 1)]
    return torch.cat(parts, dim=1)


def fit(images: Sequence[torch.Tensor]) -> Components:
    """Principal components of pictures (3, H, W) in [-1, 1]; deterministic, signs fixed."""
    squares = gather(gather(torch.stack(list(images)).double()))
    first, first_offset, coded = _project(squares, _STAGE_2, whitening=0.0)
    second, second_offset, _ = _project(gather(coded), SIZES.z_channels, whitening=_WHITENING)
    return Components(first, first_offset, second, second_offset)


def _project(x_BCHW: torch.Tensor, count: int, *, whitening: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrix (count, C), offset (count,) and the projected map."""
    rows = x_BCHW.permute(0, 2, 3, 1).flatten(0, 2)
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    chosen = vectors[:, -count:].flip(1).T
    signs = chosen.gather(1, chosen.abs().argmax(1, keepdim=True)).sign()
    matrix = chosen * signs
    deviations = values[-count:].flip(0).clamp(min=1e-12).sqrt()
    matrix = matrix * deviations[:, None] ** -whitening
    offset = -matrix @ mean
    coded = torch.einsum("oc,bchw->bohw", matrix, x_BCHW) + offset[:, None, None]
    return matrix.float(), offset.float(), coded


@torch.no_grad()
def latent_means(images_B3HW: torch.Tensor, parts: Components) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, Z, H/8, W/8): what the network of :func:`write_encoder` gives as means."""
    squares = gather(gather(images_B3HW))
    coded = torch.einsum("oc,bchw->bohw", parts.first, squares) + parts.first_offset[:, None, None]
    return torch.einsum("oc,bchw->bohw", parts.second, gather(coded)) + parts.second_offset[:, None, None]


@torch.no_grad()
def write_encoder(model: AutoEncoder, parts: Components) -> None:
    """Give an autoencoder of :data:`SIZES` the encoder that computes these components."""
    encoder, latents = model.encoder, SIZES.z_channels
    _pass_through(encoder)
    _zero(encoder.conv_in)
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1.0
    steps = [level.get_submodule("downsample").conv for level in encoder.down if level.step is not None]
    for step in steps:
        _zero(step)
    exact = torch.eye(_STAGE_1)
    _write_gathering(steps[0], exact, torch.zeros(_STAGE_1), 3)
    # 2 x 2 squares of 2 x 2 squares: the second gathering sees (outer position, inner position, colour), as fit does.
    _write_gathering(steps[1], parts.first, parts.first_offset, _STAGE_1)
    constants = torch.full((latents,), _CONSTANT)
    matrix = torch.cat([parts.second, -parts.second, torch.zeros(2 * latents, 4 * _STAGE_2)])
    offsets = torch.cat([parts.second_offset, -parts.second_offset, constants, -constants])
    _write_gathering(steps[2], matrix, offsets, _STAGE_2)
    shortcut = encoder.down[-1].block[0].nin_shortcut
    _zero(shortcut)
    for latent in range(latents):
        for place in range(4):
            shortcut.weight[4 * latent + place, place * latents + latent, 0, 0] = 1.0
    _zero(encoder.conv_out)
    deviation = _CONSTANT / math.sqrt(2)
    encoder.norm_out.weight.fill_(1.0)
    encoder.norm_out.bias.zero_()
    for latent in range(latents):
        encoder.conv_out.weight[latent, 4 * latent, 1, 1] = deviation
        encoder.conv_out.weight[latent, 4 * latent + 1, 1, 1] = -deviation
        encoder.conv_out.bias[latents + latent] = LOG_VARIANCE


def _pass_through(encoder: Encoder) -> None:
    """Blocks add nothing to their input; where the width grows, the old channels come first."""
    for part in encoder.modules():
        if isinstance(part, ResidualBlock):
            _zero(part.conv2)
            if hasattr(part, "nin_shortcut"):
                _zero(part.nin_shortcut)
                for channel in range(part.nin_shortcut.weight.shape[1]):
                    part.nin_shortcut.weight[channel, channel, 0, 0] = 1.0
        if isinstance(part, AttentionBlock):
            _zero(part.get_submodule("proj_out"))


def _zero(part: nn.Module) -> None:
    for parameter in part.parameters():
        parameter.zero_()


def _write_gathering(conv: nn.Module, matrix: torch.Tensor, offset: torch.Tensor, channels: int) -> None:
    """A 3 x 3 convolution of stride 2 that reads 2 x 2 positions; columns of ``matrix`` are (position, channel)."""
    count = len(matrix)
    for number, (row, col) in enumerate((row, col) for row in (0, 1) for col in (0, 1)):
        conv.weight[:count, :channels, row, col] = matrix[:, number * channels : (number + 1) * channels]
    conv.bias[:count] = offset


assert all(low <= high for low, high in pairwise(SIZES.ch_mult))  # widths never shrink on the way down
