"""The explicit normalisation of a loss with several parts.

Each part's sum over all targets of a step, over all forward passes and processes, is divided by the number of its
targets in that step, which is known from the data before the step. So a step's gradient does not depend on how its
samples are spread over packs, accumulation and processes, and texts do not count more when there are few of them in one
process. Conditions that dropout removes are never targets, except the tokens that ``learn_next_kind`` adds: these count
in the denominator also when their text was dropped, and so does a sample whose picture turns out to be damaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bettersynth.config.train import StageConfig
from bettersynth.models.family import LossOutput
from bettersynth.models.joint import JointOutput
from bettersynth.train.examples import TrainingSet


class LossParts:
    """Weights and denominators of a joint loss; false and without effect for a plain loss.

    Args:
        weights: per part, in the order in which the family returns them.
        totals: per part, what each sample adds to its denominator.
    """

    def __init__(self, weights: Mapping[str, float], totals: Mapping[str, Sequence[float]]) -> None:
        self.weights = dict(weights)
        self._totals = {name: totals[name] for name in weights}
        self.expected: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self.weights)

    @property
    def width(self) -> int:
        """Numbers that a step sums over processes: a sum and a denominator per part."""
        return 2 * len(self.weights)

    def expect(self, indices: Sequence[int]) -> None:
        """Take the denominators of a step from its samples."""
        self.expected = {name: sum(map(totals.__getitem__, indices)) for name, totals in self._totals.items()}

    def loss(self, output: LossOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """One forward pass's share of the step's loss, and (sum, denominator) of each part."""
        assert isinstance(output, JointOutput)
        loss = output.loss_sum.new_zeros((), dtype=torch.float32)
        facts = []
        for part in output.parts:
            expected = self.expected[part.name]
            if expected > 0 and self.weights[part.name]:
                loss = loss + self.weights[part.name] / expected * part.loss_sum
            facts += [part.loss_sum.detach().double(), part.denominator.double()]
        return loss, torch.stack(facts)

    def note(self, sums: Sequence[float], window: dict[str, list[float]]) -> float:
        """Add a step's sums to the window of the log; returns the step's loss."""
        loss = 0.0
        for place, (name, weight) in enumerate(self.weights.items()):
            total, count = sums[2 * place : 2 * place + 2]
            if count > 0:
                loss += weight * total / count
            held = window.setdefault(name, [0.0, 0.0])
            held[0] += total
            held[1] += count
        return loss

    def means(self, window: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Mean of each part over the window; parts without a target in it are left out."""
        return {f"{name}_loss": total / count for name, (total, count) in window.items() if count > 0}


def build_parts(config: StageConfig, data: TrainingSet) -> LossParts:
    """The parts of a stage's loss; none for families with a plain loss."""
    settings, totals = config.unified, getattr(data.examples, "part_totals", None)
    if settings is None or totals is None:
        return LossParts({}, {})
    return LossParts({"text": settings.text_loss_weight, "image": settings.image_loss_weight}, totals)
