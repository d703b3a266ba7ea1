"""An exponential moving average of the trained weights; the average is what is saved at the end.

Source: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992). The decay is warmed up as
min(decay, (1 + n) / (10 + n)) so that the first weights do not weigh for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from bettersynth.config.train import Number
from bettersynth.train.technique import Technique, TechniqueRun


class Settings(BaseModel):
    """Keys of ``ema``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decay: Number = Field(0.995, gt=0, lt=1)
    """Share of the average that stays at each step."""
    start: Number = Field(0.0, ge=0, lt=1)
    """Share of all steps before averaging begins."""


class Ema(Technique):
    """Holds the trained parameters a second time, on their device, in float32."""

    def __init__(self, settings: Settings, run: TechniqueRun) -> None:
        super().__init__(settings, run)
        self._first = int(settings.start * run.spec.steps)
        self._updates = 0
        self._average: list[torch.Tensor] = []

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take the new weights in."""
        if step <= self._first:
            return
        weights = [parameter.detach() for _, parameter in self.run.parameters]
        if not self._average:
            self._average = [weight.clone() for weight in weights]
        else:
            decay = min(float(self.settings.decay), (1 + self._updates) / (10 + self._updates))
            torch._foreach_lerp_(self._average, weights, 1 - decay)
        self._updates += 1

    @torch.no_grad()
    def finish(self) -> None:
        """Put the average in the place of the last weights."""
        for (_, parameter), average in zip(self.run.parameters, self._average, strict=False):
            parameter.copy_(average)

    def state(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": self._average}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._updates = state["updates"]
        device = self.run.devices.device
        self._average = [average.to(device) for average in state["average"]]

    def facts(self) -> dict[str, Any]:
        return {"averaged_steps": self._updates}


TECHNIQUE = Ema
