"""A loss made of named parts, each with its own denominator, so that the trainer chooses the normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bettersynth.models.family import LossOutput


@dataclass(frozen=True, slots=True)
class LossPart:
    """One part of a joint loss over one batch.

    Attributes:
        name: as in the logs and the loss weights: ``text`` or ``image``.
        loss_sum: sum over the part's targets, each with its weight.
        denominator: sum of those weights; the number of targets when all weights are 1.
    """

    name: str
    loss_sum: torch.Tensor
    denominator: torch.Tensor


@dataclass(frozen=True, slots=True)
class JointOutput(LossOutput):
    """A loss of several parts; ``loss_sum`` is the plain sum of the parts' means, for callers that want one number."""

    parts: tuple[LossPart, ...] = ()
