"""An exponential moving average of the trained weights; the average is what is saved at the end.

Source: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992). The decay is warmed up as
min(decay, (1 + n) / (10 + n)) so that the first weights do not weigh for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bettersynth.config.train import Number
from bettersynth.train.ema import Average
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
        self._average: Average | None = None

    def _new(self) -> Average:
        return Average(list(self.run.parameters), float(self.settings.decay), is_on_cpu=False)

    def after_step(self, step: int) -> None:
        """Take the new weights in."""
        if step <= self._first:
            return
        if self._average is None:
            self._average = self._new()
        else:
            self._average.decay = min(float(self.settings.decay), (1 + self._updates) / (10 + self._updates))
            self._average.update()
        self._updates += 1

    def finish(self) -> None:
        """Put the average in the place of the last weights."""
        if self._average is not None:
            for name, parameter in self.run.parameters:
                parameter.data.copy_(self._average.tensors[name])

    def state(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": self._average.tensors if self._average is not None else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._updates = state["updates"]
        if state["average"] is not None:
            self._average = self._new()
            self._average.load(state["average"])

    def facts(self) -> dict[str, Any]:
        return {"averaged_steps": self._updates}


TECHNIQUE = Ema
