"""Training on embeddings pushed in the direction in which the loss grows fastest, besides the plain ones.

Source: Miyato et al., "Adversarial Training Methods for Semi-Supervised Text Classification" (2017), equations 4 and 5:
the perturbation is the gradient scaled to length epsilon, per sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from bettersynth.config.train import Number
from bettersynth.models.family import Batch, LossOutput
from bettersynth.train.technique import LossFn, Technique


class Settings(BaseModel):
    """Keys of ``adversarial``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: Number = Field(0.05, gt=0)
    """Length of the perturbation, as a share of the length of the sequence's embeddings."""
    weight: Number = Field(0.5, gt=0, le=1)
    """Share of the perturbed loss in the sum; the rest is the plain loss."""
    images: bool = True
    """Whether picture tokens are pushed too."""


class Adversarial(Technique):
    """Two forward passes a batch; the direction costs one backward pass more."""

    needs = ("with_embeddings",)

    def loss(self, inner: LossFn, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """Plain and perturbed loss, mixed."""
        pushed: list[torch.Tensor] = []
        where: list[torch.Tensor] = []

        def watch(embeds_BLD: torch.Tensor, is_text_BL: torch.Tensor) -> torch.Tensor:
            mask_BL = is_text_BL if not self.settings.images else embeds_BLD.detach().abs().sum(-1) > 0
            delta_BLD = torch.zeros_like(embeds_BLD, requires_grad=True)
            pushed.append(delta_BLD)
            where.append(mask_BL.unsqueeze(-1).to(embeds_BLD.dtype))
            return embeds_BLD + delta_BLD

        family = self.run.family
        with family.with_embeddings(model, watch):  # type: ignore[attr-defined]
            plain = inner(model, batch)
        (slope_BLD,) = torch.autograd.grad(plain.loss_sum, pushed[0], retain_graph=True)
        direction_BLD = slope_BLD.float() * where[0]
        length_B11 = direction_BLD.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-20)

        def push(embeds_BLD: torch.Tensor, is_text_BL: torch.Tensor) -> torch.Tensor:
            size_B11 = embeds_BLD.detach().float().flatten(1).norm(dim=1)[:, None, None] * float(self.settings.epsilon)
            return embeds_BLD + (direction_BLD / length_B11 * size_B11).to(embeds_BLD.dtype)

        with family.with_embeddings(model, push):  # type: ignore[attr-defined]
            hard = inner(model, batch)
        weight = float(self.settings.weight)
        return LossOutput(
            (1 - weight) * plain.loss_sum + weight * hard.loss_sum, plain.num_targets, detail=plain.detail
        )


TECHNIQUE = Adversarial
