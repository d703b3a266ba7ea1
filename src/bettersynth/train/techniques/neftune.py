"""Noise on the embedded text while training, so that the model leans less on exact wordings.

Source: Jain et al., "NEFTune: Noisy Embeddings Improve Instruction Finetuning" (2023), equation 1: uniform noise in
[-1, 1] times alpha / sqrt(L * D).
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
    """Keys of ``neftune``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: Number = Field(5.0, gt=0)
    """Size of the noise."""


class Neftune(Technique):
    """Text positions get noise, picture tokens and padding none."""

    is_lockstep = True
    needs = ("with_embeddings",)

    def loss(self, inner: LossFn, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """The loss over noisy embeddings."""
        alpha = float(self.settings.alpha)

        def noisy(embeds_BLD: torch.Tensor, is_text_BL: torch.Tensor) -> torch.Tensor:
            lengths_B1 = is_text_BL.sum(1, keepdim=True).clamp(min=1)
            size_BL = alpha / torch.sqrt(lengths_B1 * embeds_BLD.shape[-1]) * is_text_BL
            noise_BLD = torch.rand_like(embeds_BLD) * 2 - 1
            return embeds_BLD + noise_BLD * size_BL.unsqueeze(-1).to(embeds_BLD.dtype)

        with self.run.family.with_embeddings(model, noisy):  # type: ignore[attr-defined]
            return inner(model, batch)


TECHNIQUE = Neftune
