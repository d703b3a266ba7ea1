"""The moving average of the trained weights: average = decay * average + (1 - decay) * weights after every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.train.optim import NamedParameters


class Average:
    """Float32 averages of the trained parameters only: frozen ones are their own average.

    Args:
        parameters: the trained parameters; the average starts at their values.
        decay: share of the old average that stays in a step.
        is_on_cpu: keep it in main memory, whatever device the model is on.
    """

    def __init__(self, parameters: NamedParameters, decay: float, *, is_on_cpu: bool = True) -> None:
        self.parameters, self.decay = parameters, decay
        self._device = torch.device("cpu") if is_on_cpu else None
        self.tensors = {
            name: parameter.detach().to(self._device or parameter.device, torch.float32, copy=True)
            for name, parameter in parameters
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights."""
        held = list(self.tensors.values())
        weights = [p.detach().to(h.device, h.dtype) for h, (_, p) in zip(held, self.parameters, strict=True)]
        torch._foreach_lerp_(held, weights, 1.0 - self.decay)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the values of a saved state.

        Raises:
            DataError: they belong to other parameters.
        """
        if list(tensors) != list(self.tensors):
            raise DataError(t("the saved state belongs to another model"), hint=t("use another output folder"))
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in place of the weights for a while."""
        kept = [parameter.detach().clone() for _, parameter in self.parameters]
        for name, parameter in self.parameters:
            parameter.data.copy_(self.tensors[name])
        try:
            yield
        finally:
            for (_, parameter), tensor in zip(self.parameters, kept, strict=True):
                parameter.data.copy_(tensor)


def build_average(config: StageConfig, parameters: NamedParameters) -> Average | None:
    """The average that the settings ask for, or None."""
    settings = config.unified
    if settings is None or settings.ema_decay == 0:
        return None
    return Average(parameters, settings.ema_decay, is_on_cpu=settings.ema_device == "cpu")
