"""Patch-info mining: every low-resolution token asks its own region of the high-resolution map.

The high-resolution map joins the tower's stages, each scaled up to the size of the first. It is by far the largest
tensor of the model (212 MB a picture in bf16 at MGM-2B's sizes). All that is asked of it is linear in it but for its
variance, so :func:`mine_maps` never makes it: what is scaled up is one channel wide, after the products.

Shape letters: B images, N low-resolution tokens, P positions per region, C low-resolution width,
F high-resolution channels, H W map size; R regions along a side (N = R * R), S positions along a region's side
(P = S * S), K positions along the side of the window of a smaller stage that a region looks at, C_s a stage's channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
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


class _Scaling(NamedTuple):
    """How one side of a smaller map becomes a side of the large one, which is cut into R regions; weights are float64.

    Attributes:
        places: positions of the smaller map in each region's window.
        shares: share of each of these in each position of the region.
        whole, squares: (large, small) weights of the whole side, and their squares.
        cross: (large, small) products of the two weights that a position has, at the first of the two.
    """

    places: torch.Tensor
    shares: torch.Tensor
    whole: torch.Tensor
    squares: torch.Tensor
    cross: torch.Tensor


@lru_cache(maxsize=64)
def _weights(large: int, small: int, regions: int) -> tuple[np.ndarray, ...]:
    """The arrays of a :class:`_Scaling`: bilinear interpolation as PyTorch does it (align_corners=False)."""
    centre_H = np.maximum((np.arange(large) + 0.5) * (small / large) - 0.5, 0)
    first_H = np.minimum(centre_H.astype(np.int64), small - 1)
    share_H = np.where(first_H + 1 < small, centre_H - first_H, 0.0)
    rows, second_H = np.arange(large), np.minimum(first_H + 1, small - 1)
    whole_HW, cross_HW = np.zeros((large, small)), np.zeros((large, small))
    whole_HW[rows, first_H] = 1 - share_H
    whole_HW[rows, second_H] += share_H
    cross_HW[rows, first_H] = share_H * (1 - share_H)
    begin_R = first_H.reshape(regions, -1)[:, 0]
    width = int((second_H.reshape(regions, -1)[:, -1] - begin_R).max()) + 1
    places_RK = np.minimum(begin_R, small - width)[:, None] + np.arange(width)
    weights_RSK = np.take_along_axis(whole_HW.reshape(regions, -1, small), places_RK[:, None], axis=2)
    return places_RK, weights_RSK, whole_HW, whole_HW**2, cross_HW


def _scaling(large: int, small: int, regions: int, device: torch.device) -> _Scaling:
    # Arrays are kept and tensors made anew, so that none from a run on shapes alone turns up in a real one.
    return _Scaling(*(torch.from_numpy(array).to(device) for array in _weights(large, small, regions)))


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _windows(map_BCHW: torch.Tensor, scaling: _Scaling) -> torch.Tensor:
    """(B, C_s, H_s, W_s) -> (B, N, K * K, C_s): what each region looks at, K rows and columns of the map."""
    regions, width = scaling.places.shape
    places = scaling.places.flatten()
    cells = map_BCHW.permute(0, 2, 3, 1).index_select(1, places).index_select(2, places)
    return cut_regions(cells, regions * regions).view(len(cells), regions * regions, width * width, -1)


def _spread(d_BNK: torch.Tensor, weights_RSK: torch.Tensor) -> torch.Tensor:
    """(B, N, K * K) values in windows -> (B, N, S * S), scaled up; with the transposed weights the other way round."""
    regions, _, width = weights_RSK.shape
    d_BRRKK = d_BNK.view(-1, regions, regions, width, width)
    rows_BRRSK = weights_RSK[:, None] @ d_BRRKK
    return (rows_BRRSK @ weights_RSK.mT).flatten(3).flatten(1, 2)


def _moments(map_BCHW: torch.Tensor, scaling: _Scaling) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and sum of squares over the channels of the scaled-up map, (B, H, W) float64 each.

    A scaled-up value is a weighted sum of four neighbours, so its square needs only the neighbours' products, which
    are summed over the channels before anything is scaled up.
    """
    f_BHWC = _wide(map_BCHW.permute(0, 2, 3, 1))
    right, below = (torch.cat([f_BHWC.narrow(a, 1, f_BHWC.shape[a] - 1), f_BHWC.narrow(a, 0, 1)], a) for a in (2, 1))
    corner = torch.cat([right[:, 1:], right[:, :1]], 1)
    own, beside, under = ((f_BHWC * other).sum(-1).double() for other in (f_BHWC, right, below))
    across = ((f_BHWC * corner).sum(-1) + (right * below).sum(-1)).double()
    whole, square, cross = scaling.whole, scaling.squares, scaling.cross
    total = whole @ f_BHWC.sum(-1).double() @ whole.mT
    squares = square @ own @ square.mT + 2 * (
        square @ beside @ cross.mT + cross @ under @ square.mT + cross @ across @ cross.mT
    )
    return total, squares


def _standardisation(
    maps: Sequence[torch.Tensor], scalings: Sequence[_Scaling], regions: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / deviation over the channels of the joined map, by region: (B, N, P) float64 each."""
    first_BHWC = _wide(maps[0].permute(0, 2, 3, 1))
    found = [(first_BHWC.sum(-1).double(), first_BHWC.square().sum(-1).double())]
    found += [_moments(one, scaling) for one, scaling in zip(maps[1:], scalings[1:], strict=True)]
    channels = sum(one.shape[1] for one in maps)
    mean_BHW, square_BHW = (torch.stack(parts).sum(0) / channels for parts in zip(*found, strict=True))
    shrink_BHW = (square_BHW - mean_BHW**2).clamp(min=0).add(eps).rsqrt()
    both = torch.stack([mean_BHW, shrink_BHW], -1)
    mean_BNP, shrink_BNP = cut_regions(both, regions * regions).unbind(-1)
    return mean_BNP, shrink_BNP


def mine_maps(
    query: nn.Sequential, aux: nn.Sequential, val: nn.Sequential, x_BNC: torch.Tensor, maps: Sequence[torch.Tensor]
) -> Mined:
    """:func:`mine` from the stages' maps (B, C_s, H_s, W_s), without the map that joins them.

    With u the query in the space of features, ``u.z_p = (u - mean(u)).f_p / deviation_p``, and f_p is scaled up from
    the stages: the products with u are taken in the small maps and then scaled up; for the sum over positions the
    weights are scaled down instead.
    """
    aux_norm, aux_linear = aux[0], aux[1]
    val_norm, val_linear = val[0], val[1]
    q_BNC = query(x_BNC)
    u_BNF = (q_BNC @ aux_linear.weight) * aux_norm.weight
    u_BNF = u_BNF - u_BNF.mean(-1, keepdim=True)
    side, regions = maps[0].shape[-1], math.isqrt(x_BNC.shape[1])
    wide = torch.promote_types(q_BNC.dtype, torch.float32)
    scalings = [_scaling(side, one.shape[-1], regions, one.device) for one in maps]
    with torch.no_grad():
        mean_BNP, shrink_BNP = (x.to(wide) for x in _standardisation(maps, scalings, regions, aux_norm.eps))
        windows = [_windows(one, scaling) for one, scaling in zip(maps, scalings, strict=True)]
        shares = [scaling.shares.to(wide) for scaling in scalings]
    parts = u_BNF.split([one.shape[1] for one in maps], dim=-1)
    products = [
        _spread(torch.einsum("bnf,bnkf->bnk", part.to(window.dtype), window).to(wide), share)
        for part, window, share in zip(parts, windows, shares, strict=True)
    ]
    logits_BNP = torch.stack(products).sum(0) * shrink_BNP / math.sqrt(q_BNC.shape[-1])
    attention_BNP = logits_BNP.softmax(-1)
    weights_BNP = attention_BNP * shrink_BNP
    pooled = [
        torch.einsum("bnk,bnkf->bnf", _spread(weights_BNP, share.mT).to(window.dtype), window)
        for window, share in zip(windows, shares, strict=True)
    ]
    pooled_BNF = torch.cat(pooled, -1).to(wide) - (weights_BNP * mean_BNP).sum(-1, keepdim=True)
    pooled_BNF = pooled_BNF.to(val_linear.weight.dtype)
    value_BNC = val_linear(pooled_BNF * val_norm.weight + val_norm.bias)
    value_BNC = value_BNC + 0.0 * (aux_norm.bias.sum() + aux_linear.bias.sum())  # as in mine()
    return Mined(q_BNC, attention_BNP.to(q_BNC.dtype), value_BNC)


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
