"""Predict the decoder's output at a step from its finite differences at earlier steps.

Source: Liu et al. 2025 (TaylorSeer), with the original BAGEL's settings: the first five steps are computed, then every
third; differences up to order 6. Only the output of the last layer matters.
"""

from __future__ import annotations

import math

import torch

_FIRST_STEPS = 5
_PERIOD = 3
_MAX_ORDER = 6


class TaylorState:
    """The state of one guidance branch."""

    def __init__(self) -> None:
        self.step = 0
        self.computed = [0]
        self.since = 0
        self.differences: list[torch.Tensor] = []

    def must_compute(self) -> bool:
        """Whether the coming step is computed rather than predicted."""
        return self.step < _FIRST_STEPS or self.since == _PERIOD - 1

    def record(self, output: torch.Tensor) -> None:
        """Take in a computed output."""
        self.since = 0
        self.computed.append(self.step)
        distance = self.computed[-1] - self.computed[-2]
        new = [output]
        for old in self.differences[:_MAX_ORDER]:
            if self.step < _FIRST_STEPS - 1:
                break
            new.append((new[-1] - old) / distance)
        self.differences = new
        self.step += 1

    def predict(self) -> torch.Tensor:
        """The extrapolated output of the coming step."""
        self.since += 1
        distance = self.step - self.computed[-1]
        self.step += 1
        terms = (f * (distance**i / math.factorial(i)) for i, f in enumerate(self.differences))
        return torch.stack(list(terms)).sum(0)
