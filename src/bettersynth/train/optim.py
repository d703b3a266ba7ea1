"""Optimiser and learning-rate schedule, the rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.train.adam8 import AdamW8bit

NamedParameters = Sequence[tuple[str, nn.Parameter]]


def warmup_steps(total_steps: int, ratio: float) -> int:
    """Steps in which the rate rises: the share of all steps, rounded up."""
    return math.ceil(total_steps * ratio)


def lr_at(config: StageConfig, step: int, total_steps: int) -> float:
    """Learning rate of a step, counted from 0.

    With a warm-up the first step has rate 0, as in the original recipe. Cosine and linear reach 0 after the last step.

    >>> from bettersynth.config.train import stage_config
    >>> config = stage_config({"stage": 1, "data": "d.json", "model_zoo": "zoo", "lr": 0.001, "warmup_ratio": 0.16,
    ...                        "per_device_batch_size": 1})
    >>> [round(lr_at(config, step, 6), 6) for step in range(6)]
    [0.0, 0.001, 0.000905, 0.000655, 0.000345, 9.5e-05]
    """
    warmup = warmup_steps(total_steps, config.warmup_ratio)
    if step < warmup:
        return config.lr * step / warmup
    if config.scheduler == "constant":
        return config.lr
    progress = (step - warmup) / max(1, total_steps - warmup)
    if config.scheduler == "linear":
        return config.lr * max(0.0, 1.0 - progress)
    return config.lr * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def build_optimizer(parameters: NamedParameters, config: StageConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; vectors (norm weights, biases) are not decayed."""
    matrices = [parameter for _, parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for _, parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw_8bit":
        return AdamW8bit(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    # The fused kernel is 2-3 times faster than the for-each form on a CPU too; both give the same bits run after run.
    fused = all(parameter.is_floating_point() for _, parameter in parameters)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """The gradients there are, in parameter order."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def total_norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """L2 norm over all tensors together, float32 scalar."""
    if not tensors:
        return torch.zeros(())
    norms = torch._foreach_norm(list(tensors))
    return torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))


def clip_factor(norm: float, max_norm: float) -> float:
    """What gradients of that norm are multiplied with so that the norm is at most ``max_norm`` (0: clipping is off).

    Source: torch.nn.utils.clip_grad_norm_ (the 1e-6 in the denominator).
    """
    if max_norm <= 0:
        return 1.0
    return min(1.0, max_norm / (norm + 1e-6))
