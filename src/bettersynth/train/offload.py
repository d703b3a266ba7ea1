"""Keep float32 weights, gradients and optimiser states on the host; the device holds weights in few bytes.

The device's copy of a trained weight is in the precision of the forward pass. As soon as a gradient is complete it is
added to the host's and freed, so that the device never holds more than the gradients of the layer at work. The host
updates, and the device's copies are made again. In fp32 every bit is as without offloading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.train.memory import on_host
from bettersynth.train.prepare import COMPUTE_DTYPES

NamedParameters = list[tuple[str, nn.Parameter]]
_HOST = torch.device("cpu")


class Offload:
    """The host's side of a training.

    Args:
        trained: the model's trained parameters by name, float32.
        dtype: of the device's copies.

    Attributes:
        masters: the host's float32 parameters under the same names; what is optimised, saved and digested.
    """

    def __init__(self, trained: Sequence[tuple[str, nn.Parameter]], dtype: torch.dtype) -> None:
        self._copies = [parameter for _, parameter in trained]
        self.masters: NamedParameters = []
        for name, parameter in trained:
            value = parameter.detach().to(_HOST, torch.float32, copy=True)
            self.masters.append((name, nn.Parameter(_pinned(value) if parameter.is_cuda else value)))
            parameter.data = parameter.data.to(dtype)
            parameter.register_post_accumulate_grad_hook(self._take)
        self._master = {id(copy): master for copy, (_, master) in zip(self._copies, self.masters, strict=True)}

    def _take(self, parameter: torch.Tensor) -> None:
        """Add a complete gradient to the host's, and free the device's."""
        master = self._master[id(parameter)]
        assert parameter.grad is not None
        with on_host():
            grad = parameter.grad.to(_HOST).to(torch.float32)
            parameter.grad = None
            if master.grad is None:
                master.grad = grad
            else:
                master.grad += grad

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the host's weights to the device."""
        for copy, (_, master) in zip(self._copies, self.masters, strict=True):
            copy.copy_(master)

    def restore(self) -> None:
        """Put the float32 weights into the model, on the host, to be written."""
        for copy, (_, master) in zip(self._copies, self.masters, strict=True):
            copy.data = master.data


def _pinned(value: torch.Tensor) -> torch.Tensor:
    # Page-locked memory is copied to and from a device at the full speed of the bus.
    return value.pin_memory()


def build_offload(config: StageConfig, trained: NamedParameters) -> Offload | None:
    """Offloading, if it is asked for.

    Raises:
        ConfigError: fp16, whose loss scaling needs the gradients on the device.
    """
    if not config.offload_optimizer:
        return None
    if config.precision == "fp16":
        raise ConfigError(t("offloading needs bf16 or fp32"), where="offload_optimizer", got="precision: fp16")
    return Offload(trained, COMPUTE_DTYPES[config.precision])
