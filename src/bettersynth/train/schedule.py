"""Learning rate as a pure function of the step, with a warm-up counted in steps and a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULERS = ("constant", "cosine", "linear")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A warm-up followed by one of three shapes.

    Attributes:
        peak: rate at the end of the warm-up.
        warmup_steps: steps in which the rate rises from 0; the first has rate 0.
        total_steps: step at which the floor is reached. Later steps stay there.
        scheduler: ``constant``, ``cosine`` or ``linear``.
        floor: last rate of cosine and linear.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    scheduler: str = "cosine"
    floor: float = 0.0

    def rate(self, step: int) -> float:
        """Rate in force at optimiser step ``step``, counted from 0.

        >>> [round(Schedule(1.0, 2, 6, "linear").rate(step), 3) for step in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if self.scheduler == "constant":
            return self.peak
        share = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        left = 0.5 * (1.0 + math.cos(math.pi * share)) if self.scheduler == "cosine" else 1.0 - share
        return self.floor + (self.peak - self.floor) * left
