"""Patch-info mining: every low-resolution token asks its own region of the high-resolution map.

Shape letters: B images, N low-resolution tokens, P positions per region, C low-resolution width,
F high-resolution channels, H W map size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Mined(NamedTuple):
    """What mining computes, kept apart so that each part can be tested: (B, N, C), (B, N, P) and (B, N, C)."""

    query: torch.Tensor
    attention: torch.Tensor
    value: torch.Tensor


def join_stages(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Bring all stage outputs to the size of the first one and join their channels.

    Args:
        maps: (B, C_s, H_s, W_s) per stage, largest first.

    Returns:
        (B, H, W, F): channels last, F = sum of C_s. Interpolation is bilinear in float32, as in the original.
    """
    size = maps[0].shape[-2:]
    joined = [maps[0].permute(0, 2, 3, 1)]
    for map_BCHW in maps[1:]:
        scaled = F.interpolate(map_BCHW.float(), size=size, mode="bilinear", align_corners=False)
        joined.append(scaled.to(map_BCHW.dtype).permute(0, 2, 3, 1))
    return torch.cat(joined, dim=-1)


def shrink(f_BHWF: torch.Tensor, factor: int) -> torch.Tensor:
    """The map scaled by 1/factor, bilinear in float32 (the whole-picture view of HD mode)."""
    small = F.interpolate(f_BHWF.permute(0, 3, 1, 2).float(), scale_factor=1 / factor, mode="bilinear")
    return small.to(f_BHWF.dtype).permute(0, 2, 3, 1)


def cut_tiles(f_BHWF: torch.Tensor, grid: int) -> torch.Tensor:
    """(B, H, W, F) -> (B * grid * grid, H/grid, W/grid, F), tiles of a picture in row-major order."""
    batch, height, width, channels = f_BHWF.shape
    tiles = f_BHWF.view(batch, grid, height // grid, grid, width // grid, channels)
    return tiles.transpose(2, 3).reshape(-1, height // grid, width // grid, channels)


def cut_regions(f_BHWF: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """(B, H, W, F) -> (B, N, P, F): the region of each token, tokens and positions in row-major order."""
    batch, _, _, channels = f_BHWF.shape
    return cut_tiles(f_BHWF, math.isqrt(num_tokens)).view(batch, num_tokens, -1, channels)


def mine(
    query: nn.Sequential, aux: nn.Sequential, val: nn.Sequential, x_BNC: torch.Tensor, f_BNPF: torch.Tensor
) -> Mined:
    """Attention of each token over its region, with two F x C products per token instead of two per position.

    With z the standardised feature (LayerNorm without its affine part: weight g, bias b), a key is
    ``Wk (g*z + b) + bk``, so

        q.k = (g * Wk^T q).z + constant,        sum_p a_p v_p = Wv (g' * sum_p a_p z_p + b') + bv,

    because softmax ignores a constant and the weights a_p sum to one.

    Args:
        query, aux, val: the three (LayerNorm, Linear) heads.
        x_BNC: low-resolution tokens.
        f_BNPF: regions of the high-resolution map.
    """
    aux_norm, aux_linear = aux[0], aux[1]
    val_norm, val_linear = val[0], val[1]
    q_BNC = query(x_BNC)
    z_BNPF = F.layer_norm(f_BNPF, aux_norm.normalized_shape, eps=aux_norm.eps)
    u_BNF = (q_BNC @ aux_linear.weight) * aux_norm.weight
    logits_BNP = torch.einsum("bnf,bnpf->bnp", u_BNF, z_BNPF) / math.sqrt(q_BNC.shape[-1])
    wide = torch.promote_types(logits_BNP.dtype, torch.float32)
    attention_BNP = logits_BNP.softmax(-1, dtype=wide).to(q_BNC.dtype)
    pooled_BNF = torch.einsum("bnp,bnpf->bnf", attention_BNP, z_BNPF)
    value_BNC = val_linear(pooled_BNF * val_norm.weight + val_norm.bias)
    # The two key biases cannot matter (softmax removes them). Adding them with weight zero gives them a zero gradient
    # instead of none, which optimisers and gradient averaging over machines expect.
    value_BNC = value_BNC + 0.0 * (aux_norm.bias.sum() + aux_linear.bias.sum())
    return Mined(q_BNC, attention_BNP, value_BNC)


def mine_reference(
    query: nn.Sequential, aux: nn.Sequential, val: nn.Sequential, x_BNC: torch.Tensor, f_BNPF: torch.Tensor
) -> Mined:
    """The same attention as published: keys and values of every position. Slow; kept to check :func:`mine` against.

    Source: Li et al. 2024 (Mini-Gemini), equation 1; NaN logits become 0 as in the public code.
    """
    q_BNC, k_BNPC, v_BNPC = query(x_BNC), aux(f_BNPF), val(f_BNPF)
    logits_BNP = torch.einsum("bnc,bnpc->bnp", q_BNC, k_BNPC) / math.sqrt(q_BNC.shape[-1])
    logits_BNP = torch.where(logits_BNP.isnan(), torch.zeros_like(logits_BNP), logits_BNP)
    attention_BNP = logits_BNP.softmax(-1)
    return Mined(q_BNC, attention_BNP, torch.einsum("bnp,bnpc->bnc", attention_BNP, v_BNPC))
