"""What a stage will do, before it does it: samples, steps, tokens, parameters, memory. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.lang import t
from bettersynth.models.family import load_family
from bettersynth.train.bases import load_start, start_digests
from bettersynth.train.checkpoint import saved_states
from bettersynth.train.data import prepare
from bettersynth.train.distributed import Devices
from bettersynth.train.examples import TrainingSet
from bettersynth.train.prepare import COMPUTE_DTYPES
from bettersynth.train.sampler import OrderSpec
from bettersynth.train.stages import StageJob, build_processor, finished_stage
from bettersynth.train.trainer import order_spec

Status = Literal["to do", "continues", "done"]

_SAVED_PER_LINEAR = 1.5
"""Activations kept per linear layer, in multiples of its input and output: with norms, functions and residuals."""


@dataclass(frozen=True)
class StagePlan:
    """A stage before it runs.

    Attributes:
        status: the output folder is empty, holds a state to continue from (``done_steps``), or a finished result.
        rows, sampled_out, rejected: the data file's rows, those beyond the sample limit, those unusable by reason.
        samples: training samples to show, repetitions counted; ``tokens`` in them, image tokens included (an
            estimate when the data is not shown a whole number of times).
        trainable_parameters, frozen_parameters: numbers, not bytes.
        memory_bytes: rough need of one device by part.
    """

    stage: int
    status: Status
    done_steps: int
    rows: int
    sampled_out: int
    rejected: Mapping[str, int]
    samples: int
    steps: int
    global_batch: int
    tokens: int
    trainable_parameters: int
    frozen_parameters: int
    memory_bytes: Mapping[str, int]
    notes: tuple[str, ...] = ()


def plan_stage(config: StageConfig, *, out: Path | None = None, num_devices: int = 1) -> StagePlan:
    """Work out a stage without training it or writing anything; reads data and base weights.

    Args:
        out: where the result would go, to see what is done already.
        num_devices: devices that would share a step.

    Raises:
        ConfigError, DataError: what would stop the stage from starting.
    """
    config = config.with_devices(num_devices)
    notes = []
    if config.adapter is not None and not config.adapter.exists():
        notes.append(t("{path} does not exist yet; stage 1 writes it", path=config.adapter))
        config, out = config.model_copy(update={"adapter": None}), None
    family = load_family(config.family)
    model = load_start(config, family, dtype=torch.bfloat16)
    processor = build_processor(config, family, model)
    data = prepare(config, processor)
    spec = order_spec(config, data)
    names = {name for name, _ in family.trainable(model, config.stage)}
    counts = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        counts[name in names] += parameter.numel()
    status, done = _status(config, out, num_devices, spec.steps)
    return StagePlan(
        stage=config.stage,
        status=status,
        done_steps=done,
        rows=data.rows,
        sampled_out=data.sampled_out,
        rejected=data.reasons,
        samples=spec.total,
        steps=spec.steps,
        global_batch=spec.global_batch,
        tokens=round(sum(data.examples.num_tokens) * spec.total / len(data.examples)),
        trainable_parameters=counts[True],
        frozen_parameters=counts[False],
        memory_bytes=_memory(config, model, data, spec, counts),
        notes=(*data.notes, *notes),
    )


def _status(config: StageConfig, out: Path | None, num_devices: int, steps: int) -> tuple[Status, int]:
    if out is None:
        return "to do", 0
    job = StageJob(config, out, start_digests(config), Devices(0, num_devices, torch.device("cpu")))
    if finished_stage(job) is not None:
        return "done", steps
    states = saved_states(out)
    if states:
        return "continues", int(states[0].name.rpartition("-")[2])
    return "to do", 0


def _memory(
    config: StageConfig, model: nn.Module, data: TrainingSet, spec: OrderSpec, counts: Mapping[bool, int]
) -> dict[str, int]:
    """Bytes by part: exact for weights, gradients and optimiser; activations are a rough estimate."""
    frozen_size = torch.empty((), dtype=COMPUTE_DTYPES[config.precision]).element_size()
    longest = sorted(data.examples.num_tokens, reverse=True)[: spec.micro_batch]
    positions = max(longest) * len(longest)
    widths = [
        module.in_features + module.out_features
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "tower" not in name  # towers run without gradients
    ]
    layers = max(1, len([name for name, module in model.named_modules() if name.endswith("mlp")]))
    kept = sum(widths) / layers if config.gradient_checkpointing else sum(widths)
    return {
        "trainable_weights": 4 * counts[True],
        "frozen_weights": frozen_size * counts[False],
        "gradients": 4 * counts[True],
        "optimizer": 8 * counts[True],
        "activations_estimate": round(positions * kept * frozen_size * _SAVED_PER_LINEAR),
        "pixel_cache": config.pixel_cache_bytes,
    }
