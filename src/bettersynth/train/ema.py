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
        self.is_on_host = is_on_cpu
        device = torch.device("cpu") if is_on_cpu else None
        self.tensors = {
            name: parameter.detach().to(device or parameter.device, torch.float32, copy=True)
            for name, parameter in parameters
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights; from another device one by one, so that no copy of all exists."""
        pairs = [(h, p.detach()) for h, (_, p) in zip(self.tensors.values(), self.parameters, strict=True)]
        if all(held.device == weights.device for held, weights in pairs):
            torch._foreach_lerp_([held for held, _ in pairs], [w.to(torch.float32) for _, w in pairs], 1 - self.decay)
            return
        for held, weights in pairs:
            held.lerp_(weights.to(held.device, held.dtype), 1 - self.decay)

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
        """The averages in place of the weights for a while; exchanged one by one, so that no copy of all exists."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.parameters:
            held = self.tensors[name]
            weights = parameter.detach().to(held.device, held.dtype, copy=True)
            parameter.data.copy_(held)
            held.copy_(weights)


def build_average(config: StageConfig, parameters: NamedParameters) -> Average | None:
    """The average that the settings ask for, or None."""
    settings = config.unified
    if settings is None or settings.ema_decay == 0:
        return None
    return Average(parameters, settings.ema_decay, is_on_cpu=settings.ema_device == "cpu")
