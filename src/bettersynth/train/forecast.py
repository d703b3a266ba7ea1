"""What a training step will need, by running it on shapes: real code, tensors without memory, no arithmetic.

The model's parameters are replaced by tensors that have a shape and a type but no bytes; then the very functions that
train (freezing, low-rank layers, checkpointing, loss, update) run on them under the tracker that measures real runs.
So the forecast follows every change of the code, and MGM-2B takes seconds on a laptop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bettersynth.config.train import StageConfig
from bettersynth.models.family import Batch, ModelFamily
from bettersynth.train import lora, memory, optim
from bettersynth.train.distributed import Devices
from bettersynth.train.ema import build_average
from bettersynth.train.placement import Replicated
from bettersynth.train.prepare import COMPUTE_DTYPES, prepare_model

_CPU = Devices(0, 1, torch.device("cpu"))


def _without_values(batch: Batch, shapes: FakeTensorMode) -> Batch:
    """A batch's tensors by their shapes."""
    return {name: value if _is_list(name, value) else shapes.from_tensor(value) for name, value in batch.items()}


def _is_list(name: str, value: torch.Tensor) -> bool:
    """Whether an input may be read as Python numbers (lengths, counts, shapes): it is then kept as it is."""
    return (value.ndim <= 1 or name.endswith("_shapes")) and not value.is_floating_point()


@dataclass(frozen=True)
class Forecast:
    """Steps by shapes.

    Attributes:
        peak_bytes: most bytes of tensors alive on the device; ``parts`` sums up to it.
        host_bytes: bytes of tensors kept on the host by offloading.
        flops: of one forward and backward pass, recomputation included.
        trained, frozen: numbers in the parameters, with low-rank layers if there are any.
        state_bytes: what a resumable state holds of parameters, optimiser and average.
    """

    peak_bytes: int
    parts: Mapping[str, int]
    host_bytes: int
    flops: int
    trained: int
    frozen: int
    state_bytes: int


@dataclass(frozen=True)
class StepShape:
    """What one device computes in a step; of a batch only the shapes count.

    Attributes:
        batches: the micro-batch of its first forward pass; then, if there are more, the largest of the others, whose
            passes find gradients that have been added up before.
    """

    batches: tuple[Batch, ...]


def forecast(
    config: StageConfig,
    family: ModelFamily,
    model: nn.Module,
    steps: Sequence[StepShape],
    *,
    is_start: bool = False,
    update: bool = True,
) -> Forecast:
    """Run steps of a stage on shapes.

    Args:
        model: of the sizes in question, on any device; it is left without values.
        steps: one after the other; arithmetic is that of the first one's first pass.
        is_start: the first of them is the training's first: the optimiser has no states before its update.
        update: also accumulate and update, where the peak may be; False: every pass by itself.
    """
    all_numbers = sum(parameter.numel() for parameter in model.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True) as shapes:
        _drop_values(model)
        step = _Step(config, family, model)
        if update and not is_start:  # the states exist from the second step on
            step.update()
        tracker = memory.LiveBytes("cpu", logits_width=memory.logits_width(model), is_shapes=True)
        with tracker, memory.attributed(tracker, step):
            flops = 0
            for shape in steps:
                for given in shape.batches:
                    batch = _without_values(given, shapes)
                    tracker.assign(batch.values(), memory.BUFFERS)
                    step.forward_backward(batch)
                    flops = flops or tracker.flops
                    if not update:
                        step.optimizer.zero_grad(set_to_none=True)
                if update:
                    step.update()
    # Low-rank layers are new, and weights in few bits are no parameters any more.
    added = sum(p.numel() for name, p in step.trained if lora.is_added(name))
    own = sum(parameter.numel() for _, parameter in step.trained)
    states = [value for state in step.optimizer.state.values() for value in state.values()]
    averages = [] if step.average is None else list(step.average.tensors.values())
    kept = [*states, *averages, *(parameter for _, parameter in step.parameters)]
    state_bytes = sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))
    return Forecast(
        peak_bytes=tracker.peak_bytes,
        parts=tracker.peak,
        host_bytes=tracker.host_bytes,
        flops=flops,
        trained=own,
        frozen=all_numbers + added - own,
        state_bytes=state_bytes,
    )


class _Step:
    """The trainer's parts of one step, on tensors without values."""

    def __init__(self, config: StageConfig, family: ModelFamily, model: nn.Module) -> None:
        self.config, self.family, self.model = config, family, model
        prepare_model(config, family, model)
        self.placement = Replicated(config, model, _CPU)
        self.trained, self.parameters = self.placement.trained, self.placement.parameters
        self.optimizer = optim.build_optimizer(self.parameters, config)
        self.average = build_average(config, self.parameters)
        model.train()

    def forward_backward(self, batch: Batch) -> None:
        """One micro-batch."""
        is_full = self.config.precision == "fp32"
        with nullcontext() if is_full else torch.autocast("cpu", dtype=COMPUTE_DTYPES[self.config.precision]):
            output = self.family.loss(self.model, batch)
        (output.loss_sum / 2.0).backward()

    def update(self) -> None:
        """Clip and step."""
        self.placement.collect()
        grads = self.placement.reduce()
        optim.total_norm(grads)
        torch._foreach_mul_(grads, 0.5)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.placement.refresh()
        if self.average is not None:
            self.average.update()


def _drop_values(model: nn.Module) -> None:
    """Replace every tensor of a model by one without memory; parameters become float32, as they are loaded."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                value = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
                module._parameters[name] = nn.Parameter(value, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
