"""Where a training's weights lie: whole in every process, or (:mod:`bettersynth.train.sharding`) split among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.models.family import ModelFamily
from bettersynth.train import optim, shards
from bettersynth.train.distributed import Devices
from bettersynth.train.memory import on_host
from bettersynth.train.offload import build_offload
from bettersynth.train.optim import NamedParameters
from bettersynth.train.prepare import settle
from bettersynth.train.sharding import Sharded


class Placement(Protocol):
    """What the loop needs to know.

    Attributes:
        trained: the model's trained parameters by name.
        parameters: float32 tensors by name: what this process optimises, and keeps its averages of.
        is_lockstep: whether all processes must run the same number of passes, because they exchange weights in each.
    """

    trained: NamedParameters
    parameters: NamedParameters
    is_lockstep: bool

    def collect(self) -> None:
        """Give every parameter its gradient, zero where there is none."""
        ...

    def reduce(self) -> list[torch.Tensor]:
        """The gradients of the parameters, summed over all processes, in their order."""
        ...

    def norm(self, gradients: Sequence[torch.Tensor]) -> float:
        """L2 norm of the whole model's gradients."""
        ...

    def refresh(self) -> None:
        """Bring updated weights to where they are computed with."""
        ...

    def open_state(self, state: dict[str, Any], folder: Path, optimizer: torch.optim.Optimizer) -> None:
        """Turn a saved state, of any placement, into one with this process's tensors, in place."""
        ...

    def save_shards(
        self, state: dict[str, Any], folder: Path, optimizer: torch.optim.Optimizer
    ) -> dict[str, str] | None:
        """Take the tensors out of a state and write them from all processes; digests by file. None: left in it."""
        ...

    def restore(self) -> NamedParameters:
        """Put whole float32 weights into the model of process 0, to be written; returns the trained ones."""
        ...

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole tensors, in process 0, from this process's parts of tensors that are as the parameters."""
        ...


class Replicated:
    """Every process holds all weights and sums all gradients."""

    is_lockstep = False

    def __init__(self, config: StageConfig, model: nn.Module, devices: Devices) -> None:
        settle(config, model.parameters(), devices.device)
        if any(buffer.device != devices.device for buffer in model.buffers()):
            model.to(devices.device)
        self.trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        devices.broadcast_([parameter.data for _, parameter in self.trained])
        self._devices = devices
        self._offload = build_offload(config, self.trained)
        self.parameters = self.trained if self._offload is None else self._offload.masters

    def collect(self) -> None:
        """Zeros where no forward pass fell to this process, or a parameter was not used."""
        with nullcontext() if self._offload is None else on_host():
            for _, parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def reduce(self) -> list[torch.Tensor]:
        """Sums over all processes."""
        gradients = optim.gradients(parameter for _, parameter in self.parameters)
        self._devices.sum_(gradients)
        return gradients

    def norm(self, gradients: Sequence[torch.Tensor]) -> float:
        """L2 norm."""
        return float(optim.total_norm(gradients))

    def refresh(self) -> None:
        """With offloading, the host's weights go to the device."""
        if self._offload is not None:
            self._offload.refresh()

    def open_state(self, state: dict[str, Any], folder: Path, optimizer: torch.optim.Optimizer) -> None:
        """Read the parts that were written by a split training, if it was one."""
        if shards.is_away(state):
            shards.read(state, folder, self.parameters, optimizer, lambda name, tensor: tensor)

    def save_shards(self, state: dict[str, Any], folder: Path, optimizer: torch.optim.Optimizer) -> None:
        """Nothing to do: process 0 writes whole tensors."""

    def restore(self) -> NamedParameters:
        """With offloading, the host's weights become the model's."""
        if self._offload is not None:
            self._offload.restore()
        return self.parameters

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """They are whole."""
        return dict(tensors)


def build_placement(config: StageConfig, family: ModelFamily, model: nn.Module, devices: Devices) -> Placement:
    """Put a prepared model onto the devices as the settings say; one process alone holds everything anyway."""
    if config.sharding == "off" or devices.world == 1:
        return Replicated(config, model, devices)
    return Sharded(config, family, model, devices)
