"""Weights, gradients and optimiser states split among the processes by PyTorch's FSDP2 (``fully_shard``).

Each decoder layer is a unit: its weights are whole only while it is at work (``full``), or from its forward to its
backward pass (``grad_op``); everything else outside of the frozen towers is the last unit. Weights are exchanged in the
precision of the forward pass, gradients are summed in float32. With ``offload_optimizer`` a process keeps its part on
the host. Source: Zhao et al. 2023 (PyTorch FSDP), Rajbhandari et al. 2020 (ZeRO): stage 2 is ``grad_op``, 3 ``full``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.models.family import ModelFamily, ShardUnits
from bettersynth.train import optim, shards
from bettersynth.train.distributed import Devices
from bettersynth.train.optim import NamedParameters
from bettersynth.train.prepare import COMPUTE_DTYPES, settle
from bettersynth.train.technique import TECHNIQUES


class Sharded:
    """See :class:`bettersynth.train.placement.Placement`.

    Args:
        model: prepared, its weights as they were loaded: its units get memory on the device and are split one by one,
            so that no process ever holds all of it.

    Raises:
        ConfigError, ConfigErrors: the settings ask for something that cannot be split.
    """

    is_lockstep = True

    def __init__(self, config: StageConfig, family: ModelFamily, model: nn.Module, devices: Devices) -> None:
        raise_all(problems(config, family), where="sharding")
        self._model, self._devices = model, devices
        self._meshes: dict[str, DeviceMesh] = {}
        units: ShardUnits = family.shard_units(model)  # type: ignore[attr-defined]
        for part in units.whole:
            settle(config, part.parameters(), devices.device)
            part.to(devices.device)  # buffers
        dtype = COMPUTE_DTYPES[config.precision]
        is_cuda = devices.device.type == "cuda"
        options: dict[str, Any] = {
            "mesh": self._mesh(devices.device.type),
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=None if dtype == torch.float32 else dtype,
                reduce_dtype=torch.float32,
                cast_forward_inputs=False,  # autocast decides, as it does without splitting
            ),
            "offload_policy": CPUOffloadPolicy(pin_memory=is_cuda) if config.offload_optimizer else OffloadPolicy(),
        }
        # A layer may hand a slice of its input through; nothing here changes one in place.
        warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)
        for unit in units.modules:
            settle(config, unit.parameters(), devices.device)
            fully_shard(unit, reshard_after_forward=config.sharding == "full", **options)
        kept = {parameter for part in units.whole for parameter in part.parameters()}
        split = {parameter for unit in units.modules for parameter in unit.parameters()}
        settle(config, (part for part in model.parameters() if part not in kept and part not in split), devices.device)
        fully_shard(model, ignored_params=kept, **options)
        for module in (*units.modules, model):
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)  # sums: the loss is divided by the targets of all processes
            module.set_force_sum_reduction_for_comms(True)
        # A process whose pass has no picture still takes part in the exchange of what pictures train.
        model.set_reduce_scatter_unused_params(True)  # type: ignore[operator]
        self.trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._split = dict(self.trained)
        self.parameters = [(name, nn.Parameter(_local(parameter).detach())) for name, parameter in self.trained]

    def _mesh(self, kind: str) -> DeviceMesh:
        if kind not in self._meshes:
            self._meshes[kind] = init_device_mesh(kind, (self._devices.world,))
        return self._meshes[kind]

    def _layout(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """This process's part of something shaped like a trained parameter -> the whole as a distributed tensor."""
        return self._distributed(part, self._split[name])

    def _distributed(self, part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        mesh = self._mesh(part.device.type)
        return DTensor.from_local(part, mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride())

    def collect(self) -> None:
        """Take the summed gradients that the backward passes have left."""
        for (_, split), (_, own) in zip(self.trained, self.parameters, strict=True):
            own.grad = torch.zeros_like(own) if split.grad is None else _local(split.grad)
            split.grad = None

    def reduce(self) -> list[torch.Tensor]:
        """They are summed already."""
        return optim.gradients(parameter for _, parameter in self.parameters)

    def norm(self, gradients: Sequence[torch.Tensor]) -> float:
        """L2 norm over all processes' parts."""
        square = optim.total_norm(gradients).double().square().to(self._devices.device)
        self._devices.sum_([square])
        return float(square.sqrt())

    def refresh(self) -> None:
        """The next forward pass gathers the new weights by itself."""

    def open_state(self, state: dict[str, Any], folder: Path, optimizer: torch.optim.Optimizer) -> None:
        """Read this process's parts of a split state, or cut them out of a whole one."""
        if shards.is_away(state):
            shards.read(state, folder, self.parameters, optimizer, self._layout)
        else:
            shards.cut(state, self.parameters, optimizer, self._part)

    def _part(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        chunks = whole.chunk(self._devices.world)  # what Shard(0) means: the last parts may be smaller, or empty
        rank = self._devices.rank
        return chunks[rank].clone() if rank < len(chunks) else whole.new_empty((0, *whole.shape[1:]))

    def save_shards(self, state: dict[str, Any], folder: Path, optimizer: torch.optim.Optimizer) -> dict[str, str]:
        """Every process writes its parts."""
        return shards.write(state, folder, self.parameters, optimizer, self._layout, self._devices)

    def restore(self) -> NamedParameters:
        """Whole weights on the host of process 0, tensor by tensor; the others keep none."""
        for module in self._model.modules():
            for name, parameter in list(module._parameters.items()):
                if isinstance(parameter, DTensor):
                    module._parameters[name] = nn.Parameter(self._gathered(_local(parameter).detach(), parameter))
        trained = dict(self._model.named_parameters())
        return [(name, trained[name]) for name, _ in self.trained]

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gathered on the host of process 0."""
        return {name: self._gathered(part, self._split[name]) for name, part in tensors.items()}

    def _gathered(self, part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        full = self._distributed(part, like).full_tensor()  # type: ignore[attr-defined]
        return full.cpu() if self._devices.is_main else torch.empty_like(full, device="meta")


def _local(tensor: torch.Tensor) -> torch.Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def problems(config: StageConfig, family: ModelFamily) -> list[BetterSynthError]:
    """Everything in the settings that cannot be done with split weights."""
    found: list[BetterSynthError] = []

    def refuse(key: str, got: object, hint: str) -> None:
        found.append(ConfigError(t("not possible while weights are split"), where=key, got=got, hint=hint))

    if not hasattr(family, "shard_units"):
        refuse("family", family.name, t("set {setting}", setting="sharding: off"))
    if config.optimizer != "adamw":
        refuse("optimizer", config.optimizer, t("its blocks of 8 bits cannot be split; use adamw, which is split"))
    if config.offload_optimizer and config.precision == "fp16":
        refuse("offload_optimizer", "precision: fp16", t("offloading needs bf16 or fp32"))
    if config.track_memory:
        refuse("track_memory", True, t("on CUDA the allocator's own count is recorded without it"))
    for name in config.techniques:
        if name in TECHNIQUES.names() and not TECHNIQUES.module(name).TECHNIQUE.is_lockstep:
            refuse(f"techniques.{name}", name, t("set {setting}", setting="sharding: off"))
    if config.val_data is not None:
        refuse("val_data", config.val_data, t("score the finished checkpoint instead"))
    if config.unified is not None:
        if config.unified.sample_prompts is not None:
            refuse(
                "unified.sample_prompts", config.unified.sample_prompts, t("draw with the finished checkpoint instead")
            )
        if "und" in config.unified.freeze:
            refuse("unified.freeze", "und", t("freeze other parts, or set {setting}", setting="sharding: off"))
    return found
