from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bettersynth.models.mgm.mining import cut_regions, cut_tiles, join_stages, mine, mine_maps, mine_reference, shrink


def _heads(width: int, features: int, seed: int) -> list[nn.Sequential]:
    torch.manual_seed(seed)
    heads = [nn.Sequential(nn.LayerNorm(n), nn.Linear(n, width)).double() for n in (width, features, features)]
    for head in heads:
        for parameter in head.parameters():
            parameter.data += 0.5 * torch.randn_like(parameter)
    return heads


@settings(max_examples=15, deadline=None)
@given(
    side=st.integers(1, 4),
    region=st.integers(1, 4),
    width=st.integers(2, 9),
    features=st.integers(2, 11),
    seed=st.integers(0, 99),
)
def test_cheaper_form_equals_the_published_one_in_values_and_gradients(side, region, width, features, seed):
    heads = _heads(width, features, seed)
    tokens = torch.randn(2, side * side, width, dtype=torch.float64)
    map_BHWF = 3 * torch.randn(2, side * region, side * region, features, dtype=torch.float64) + 1
    regions = cut_regions(map_BHWF, side * side)
    weights = torch.randn(2, side * side, width, dtype=torch.float64)
    gradients = []
    outputs = []
    for form in (mine, mine_reference):
        for head in heads:
            head.zero_grad()
        output = form(*heads, tokens, regions)
        (output.value * weights).sum().backward()
        gradients.append([parameter.grad.clone() for head in heads for parameter in head.parameters()])
        outputs.append(output)
    for cheap, published in zip(*outputs, strict=True):
        torch.testing.assert_close(cheap, published, rtol=1e-9, atol=1e-11)
    for cheap, published in zip(*gradients, strict=True):
        torch.testing.assert_close(cheap, published, rtol=1e-8, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(side=st.integers(1, 4), step=st.sampled_from([2, 3, 4, 6, 8]), stages=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_joined_map_need_not_be_made(side, step, stages, seed):
    """Windows of smaller maps overlap, end at a border, and need not line up with the regions."""
    size, widths = side * step, [3, 5, 7, 2][:stages]
    heads = _heads(6, sum(widths), seed)
    tokens = torch.randn(2, side * side, 6, dtype=torch.float64, requires_grad=True)
    sizes = [max(1, size // 2**stage) for stage in range(stages)]
    maps = [2 * torch.randn(2, w, n, n, dtype=torch.float64) + 1 for w, n in zip(widths, sizes, strict=True)]
    whole = [maps[0], *(F.interpolate(m, size=(size, size), mode="bilinear", align_corners=False) for m in maps[1:])]
    regions = cut_regions(torch.cat(whole, 1).permute(0, 2, 3, 1), side * side)
    weights = torch.randn(2, side * side, 6, dtype=torch.float64)
    found = []
    for mined in (mine(*heads, tokens, regions), mine_maps(*heads, tokens, maps)):
        wanted = [tokens, *(parameter for head in heads for parameter in head.parameters())]
        found.append([*mined, *torch.autograd.grad((mined.value * weights).sum(), wanted)])
    for plain, cheap in zip(*found, strict=True):
        torch.testing.assert_close(cheap, plain, rtol=1e-8, atol=1e-9)


def test_key_biases_get_a_zero_gradient_not_none():
    query, aux, val = _heads(4, 6, 0)
    mine(query, aux, val, torch.randn(1, 4, 4).double(), torch.randn(1, 4, 3, 6).double()).value.sum().backward()
    for parameter in (aux[0].bias, aux[1].bias):
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_regions_are_row_major():
    map_BHWF = torch.arange(16.0).view(1, 4, 4, 1)
    assert cut_regions(map_BHWF, 4)[0, :, :, 0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    assert cut_tiles(map_BHWF, 2)[1, :, :, 0].tolist() == [[2, 3], [6, 7]]


def test_map_that_cannot_be_cut_is_an_error():
    with pytest.raises(RuntimeError):
        cut_regions(torch.zeros(1, 5, 5, 2), 4)


def test_join_and_shrink():
    maps = [torch.ones(1, 2, 4, 4), torch.full((1, 3, 2, 2), 5.0)]
    joined = join_stages(maps)
    assert joined.shape == (1, 4, 4, 5)
    assert joined[..., :2].eq(1).all() and joined[..., 2:].eq(5).all()
    assert shrink(torch.arange(4.0).view(1, 2, 2, 1), 2).item() == 1.5
