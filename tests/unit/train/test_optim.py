"""Schedule and optimiser against torch's own and the original recipe's numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.train import optim

Configure = Callable[..., StageConfig]


def test_cosine_matches_the_original_trajectory(configure: Configure) -> None:
    config = configure(lr=0.001, warmup_ratio=1 / 6)
    found = [optim.lr_at(config, step, 6) for step in range(6)]
    assert found == pytest.approx(
        [0.0, 0.001, 9.045084971874737e-4, 6.545084971874737e-4, 3.4549150281e-4, 9.549150e-5]
    )


@pytest.mark.parametrize(("total", "ratio", "expected"), [(100, 0.03, 3), (34, 0.03, 2), (782, 0.03, 24), (10, 0, 0)])
def test_warmup_is_rounded_up(total: int, ratio: float, expected: int) -> None:
    assert optim.warmup_steps(total, ratio) == expected


def test_linear_and_constant(configure: Configure) -> None:
    linear = configure(scheduler="linear", lr=1.0, warmup_ratio=0)
    assert [optim.lr_at(linear, step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    constant = configure(scheduler="constant", lr=1.0, warmup_ratio=0.5)
    assert [optim.lr_at(constant, step, 4) for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_decay_spares_vectors(configure: Configure) -> None:
    layer = nn.Linear(3, 2)
    optimizer = optim.build_optimizer(list(layer.named_parameters()), configure(weight_decay=0.1))
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(2, 3): 0.1, (2,): 0.0}


def test_clipping_is_torchs() -> None:
    torch.manual_seed(0)
    grads = [torch.randn(5, 3), torch.randn(7)]
    layer = [nn.Parameter(torch.zeros_like(grad)) for grad in grads]
    for parameter, grad in zip(layer, grads, strict=True):
        parameter.grad = grad.clone()
    norm = nn.utils.clip_grad_norm_(layer, 1.0)
    own = optim.total_norm(grads)
    assert float(own) == pytest.approx(float(norm))
    torch.testing.assert_close(grads[0] * optim.clip_factor(float(own), 1.0), layer[0].grad)
    assert optim.clip_factor(0.5, 1.0) == 1.0
    assert optim.clip_factor(50.0, 0.0) == 1.0
