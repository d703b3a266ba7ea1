"""Samples on which the model still fails are shown more often; how often each was shown is counted and told.

Source: the sampling distribution of Loshchilov & Hutter, "Online Batch Selection for Faster Training of Neural
Networks" (2016), with probabilities from the losses themselves instead of their ranks, mixed with uniform sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from bettersynth.config.train import Number
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.models.family import Batch, LossOutput
from bettersynth.train.technique import LossFn, Technique, TechniqueRun, sample_means


class Settings(BaseModel):
    """Keys of ``loss_sampling``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: int = Field(50, ge=1)
    """Steps between two looks at the losses. In the first interval samples come in plain order."""
    power: Number = Field(1.0, ge=0)
    """A sample's chance grows with this power of its last loss."""
    uniform: Number = Field(0.3, ge=0, le=1)
    """Share of the draws that ignore the losses, so that no sample is forgotten."""


class LossSampling(Technique):
    """Remembers the last loss of each sample; one not yet seen counts as the mean of those seen."""

    is_detailed = True

    def __init__(self, settings: Settings, run: TechniqueRun) -> None:
        super().__init__(settings, run)
        size = len(run.data.examples)
        self._losses = torch.full((size,), float("nan"), dtype=torch.float64)
        self._at_border = self._losses.clone()
        self._shown = torch.zeros(size, dtype=torch.int64)
        self._fresh: list[tuple[int, float]] = []

    @property
    def window(self) -> int:
        return int(self.settings.interval)

    def loss(self, inner: LossFn, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """The plain loss; what it was for each sample is kept."""
        output = inner(model, batch)
        with torch.no_grad():
            means = sample_means(output, len(indices)).double().tolist()
        self._fresh.extend(zip(indices, means, strict=True))
        return output

    def after_step(self, step: int) -> None:
        """All processes learn what each has seen."""
        for index, loss in [item for part in self.run.devices.gather(self._fresh) for item in part]:
            self._losses[index] = loss
            self._shown[index] += 1
        self._fresh = []
        if step % self.window == 0:
            self._at_border = self._losses.clone()

    def reorder(self, order: list[int], step: int) -> list[int]:
        """Draw the samples of the next interval."""
        spec = self.run.spec
        first, last = step * spec.global_batch, min((step + self.window) * spec.global_batch, spec.total)
        known = self._at_border[~self._at_border.isnan()]
        if step == 0 or not len(known):
            return order
        losses = self._at_border.nan_to_num(float(known.mean())).clamp(min=0).numpy()
        weights = losses ** float(self.settings.power)
        total = weights.sum()
        uniform = float(self.settings.uniform) if total > 0 else 1.0
        chances = uniform / len(losses) + (1 - uniform) * (weights / total if total > 0 else 0.0)
        rng = np.random.default_rng(derive_seed(spec.seed, "loss_sampling", step))
        # Systematic draws: each sample comes floor or ceil of its expected number of times.
        edges = np.cumsum(chances / chances.sum()) * (last - first)
        drawn = np.searchsorted(edges, np.arange(last - first) + rng.random(), side="right").clip(max=len(losses) - 1)
        rng.shuffle(drawn)
        return [*order[:first], *drawn.tolist(), *order[last:]]

    def state(self) -> dict[str, Any]:
        return {"losses": self._losses, "at_border": self._at_border, "shown": self._shown}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._losses, self._at_border, self._shown = state["losses"], state["at_border"], state["shown"]

    def finish(self) -> None:
        """Tell how unevenly samples were shown."""
        facts = self.facts()
        self.run.note(
            t(
                "loss_sampling: {never} of {n} samples were never shown, the most shown one {most} times",
                never=facts["samples_never_shown"],
                n=len(self._shown),
                most=facts["most_shown"],
            )
        )

    def facts(self) -> dict[str, Any]:
        return {"samples_never_shown": int((self._shown == 0).sum()), "most_shown": int(self._shown.max())}


TECHNIQUE = LossSampling
