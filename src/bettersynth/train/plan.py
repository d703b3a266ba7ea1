"""What a stage will do, before it does it: samples, steps, tokens, memory, disk and hours. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.models.family import Batch, ModelFamily, Processor, load_family
from bettersynth.models.weights import DEFAULT_SHARD_BYTES
from bettersynth.train import memory
from bettersynth.train.bases import load_start, start_digests
from bettersynth.train.checkpoint import saved_states
from bettersynth.train.data import prepare
from bettersynth.train.deepspeed import with_deepspeed
from bettersynth.train.distributed import Devices
from bettersynth.train.examples import TrainingSet
from bettersynth.train.forecast import Forecast, StepShape, forecast
from bettersynth.train.machines import CardPlan, host_bytes, on_cards
from bettersynth.train.mixture import pack_batches
from bettersynth.train.prepare import COMPUTE_DTYPES, build_processor, prepare_processor
from bettersynth.train.sampler import OrderSpec, micro_batches
from bettersynth.train.sharding import problems
from bettersynth.train.split_plan import GATHERED, split
from bettersynth.train.stages import StageJob, finished_stage
from bettersynth.train.trainer import order_spec

Status = Literal["to do", "continues", "done"]

TEXT_TOKENS = 128
"""Text of a sample beside its picture, where no data says how long it is; half of it is learnt from."""
_STORED_BYTES = 2
"""Bytes of a number in base model files (bf16) of which only the sizes are known."""
_MASTER_BYTES = 4
"""Bytes of a trained number: its float32 weight."""
_PICTURES = ("images", "packed_vit_tokens", "packed_vit_features", "padded_latent")
"""Inputs of a batch that hold pictures: what is prepared ahead is kept on the host."""
_STATE_COPIES = 1
"""A new resumable state is whole on disk before an old one is removed."""


@dataclass(frozen=True)
class StagePlan:
    """A stage before it runs.

    Attributes:
        status: the output folder is empty, holds a state to continue from (``done_steps``), or a finished result.
        rows, sampled_out, rejected: the data file's rows, those beyond the sample limit, those unusable by reason.
        samples: training samples to show, repetitions counted; ``tokens`` in them, image tokens included (an
            estimate when the data is not shown a whole number of times).
        trainable_parameters, frozen_parameters: numbers, not bytes.
        memory_bytes: one device's tensors by part, at the moment when they are most; ``peak_bytes`` is their sum.
        host_bytes, disk_bytes: the most that the host's memory and the output folder hold.
        flops: arithmetic of the whole stage, recomputation included.
        cards: on which cards it fits, and for how many hours it runs there.
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
    peak_bytes: int
    host_bytes: int
    disk_bytes: int
    flops: float
    cards: tuple[CardPlan, ...]
    notes: tuple[str, ...] = ()


def plan_stage(config: StageConfig, *, out: Path | None = None, num_devices: int = 1) -> StagePlan:
    """Work out a stage without training it or writing anything; reads data and base weights.

    Args:
        out: where the result would go, to see what is done already.
        num_devices: devices that would share a step.

    Raises:
        ConfigError, DataError: what would stop the stage from starting.
    """
    config, said = with_deepspeed(config.with_devices(num_devices))
    notes = [*said, *_split_notes(config, num_devices)]
    if config.adapter is not None and not config.adapter.exists():
        notes.append(t("{path} does not exist yet; stage 1 writes it", path=config.adapter))
        config, out = config.model_copy(update={"adapter": None}), None
    family = load_family(config.family)
    model = load_start(config, family, dtype=None)
    stored = sum(parameter.nbytes for parameter in model.parameters())
    processor = build_processor(config, family, model)
    data = prepare(config, processor)
    spec = order_spec(config, data)
    processor = prepare_processor(config, family, model, processor)
    needed = _batches(config, data, spec, processor, num_devices)
    if config.techniques:
        notes.append(t("what techniques keep (teachers, averages) is not planned; it comes on top"))
    is_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    work = _Work(*needed, spec.total, num_devices, is_cpu, stored)
    needs = _needs(config, family, model, work)
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
        notes=(*data.notes, *notes),
        **needs,
    )


def plan_shapes(config: StageConfig, sizes: str, *, num_devices: int = 1, tokens: int | None = None) -> StagePlan:
    """Work out a stage of a model of known sizes from its settings alone; needs neither data nor weights.

    Args:
        sizes: a model preset, e.g. ``mgm_2b``.
        num_devices: devices that would share a step.
        tokens: of every sample, image tokens included; by default one picture and 128 tokens of text.

    Raises:
        ConfigError: no such sizes, a family without them, or a sample longer than the settings allow.
    """
    config, notes = with_deepspeed(config.with_devices(num_devices))
    family = load_family(config.family)
    build, example = getattr(family, "of_sizes", None), getattr(family, "example_batch", None)
    if build is None or example is None:
        raise ConfigError(t("this family cannot be planned by its sizes alone"), where="--shapes", got=config.family)
    model: nn.Module = build(sizes)
    image_tokens = int(family.image_tokens(model))  # type: ignore[attr-defined]
    length = tokens if tokens is not None else min(image_tokens + TEXT_TOKENS, config.max_length)
    if not image_tokens < length <= config.max_length:
        raise ConfigError(
            t("no sample can be that long"),
            where="--plan-tokens",
            got=length,
            expected=t("more than {low}, at most {high}", low=image_tokens, high=config.max_length),
        )
    rows = config.max_samples or config.samples_seen or 0
    samples = config.samples_seen or config.epochs * rows
    if not samples:
        section = "joint" if config.family == "bagel" else {1: "pretrain"}.get(config.stage, "finetune")
        raise ConfigError(
            t("nothing says how many samples there are"),
            where="--shapes",
            expected="max_samples | samples_seen",
            hint=f"--set {section}.max_samples=10000",
        )
    batch: Batch = example(model, config.per_device_batch_size, length, is_packed=config.packing)
    passes = -(-samples // config.per_device_batch_size)
    global_batch = config.global_batch or 1
    steps = -(-samples // global_batch)
    most = passes if steps == 1 else -(-global_batch // config.per_device_batch_size)
    step = StepShape((batch,) * min(2, -(-most // num_devices)))
    stored = _STORED_BYTES * sum(parameter.numel() for parameter in model.parameters())
    work = _Work((step,), steps == 1, None, passes, samples, num_devices, config.device == "cpu", stored)
    needs = _needs(config, family, model, work)
    note = t("{sizes}, every sample with one picture and {n} tokens in all", sizes=sizes, n=length)
    return StagePlan(
        stage=config.stage,
        status="to do",
        done_steps=0,
        rows=rows,
        sampled_out=0,
        rejected={},
        samples=samples,
        steps=steps,
        global_batch=global_batch,
        tokens=samples * length,
        notes=(*notes, note, *_split_notes(config, num_devices)),
        **needs,
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


def _batches(
    config: StageConfig, data: TrainingSet, spec: OrderSpec, processor: Processor, num_devices: int
) -> tuple[tuple[StepShape, ...], bool, Batch, int]:
    """What memory and time follow from, see :class:`_Work`: steps, whether the first is there, usual batch, passes.

    The largest micro-batch of all decides the memory. One in the first step, before there are optimiser states, may
    still need less than the largest of the later ones, so both are run.
    """
    lengths = data.examples.num_tokens
    order = data.order(spec)
    steps = [micro_batches(order, spec, step) for step in range(spec.steps)]
    limit = config.unified.pack_tokens if config.unified is not None else None
    if limit is not None:
        steps = [pack_batches(step, lengths, limit) for step in steps]
    is_packed = config.packing or config.unified is not None

    def positions(batch: Sequence[int]) -> int:
        return sum(lengths[i] for i in batch) if is_packed else len(batch) * max(lengths[i] for i in batch)

    def size(batch: Sequence[int]) -> tuple[int, int]:
        return positions(batch), sum(pictures[i] for i in batch)

    def shape(some: Sequence[Sequence[Sequence[int]]]) -> StepShape:
        kinds = ([step[:num_devices] for step in some], [step[num_devices:] for step in some])
        found = [[batch for passes in kind for batch in passes] for kind in kinds]
        return StepShape(tuple(_collate(data, processor, max(kind, key=size)) for kind in found if kind))

    pictures = data.examples.has_image
    first, later = steps[:1], steps[1:]
    passes = [batch for step in steps for batch in step]
    is_first_needed = not later or max(map(size, first[0])) > max(size(batch) for step in later for batch in step)
    shapes = [shape(some) for some, is_needed in ((first, is_first_needed), (later, bool(later))) if is_needed]
    mean = sum(map(positions, passes)) / len(passes)
    usual = min(passes, key=lambda batch: abs(positions(batch) - mean))
    return tuple(shapes), is_first_needed, _collate(data, processor, usual), len(passes)


def _collate(data: TrainingSet, processor: Processor, indices: Sequence[int]) -> Batch:
    blank = getattr(processor, "blank_batch", None)
    if blank is not None:
        made: Batch = blank([data.examples[index] for index in indices])
        return made
    examples, pixels = [], []
    for index in indices:
        try:
            pixels.append(processor.load_pixels(data.examples[index]))
        except DataError:
            continue  # the training leaves it out, too
        examples.append(data.examples[index])
    if not examples:
        raise DataError(t("no usable training sample"), got=", ".join(data.examples.key(index) for index in indices))
    return processor.collate(examples, pixels)


@dataclass(frozen=True)
class _Work:
    """What a stage's need follows from, besides its settings.

    Attributes:
        steps: those in one of which memory is most needed; ``is_start``: the training's first one is among them.
        usual: a micro-batch of usual size, which decides the time; None: they are all alike.
        passes: forward passes of the whole stage.
        stored_bytes: of the weights in files.
    """

    steps: tuple[StepShape, ...]
    is_start: bool
    usual: Batch | None
    passes: int
    samples: int
    num_devices: int
    is_cpu: bool
    stored_bytes: int


def _needs(config: StageConfig, family: ModelFamily, model: nn.Module, work: _Work) -> dict[str, Any]:
    """The fields of a plan that follow from shapes."""
    beside_weights = getattr(family, "beside_weights_bytes", None)
    beside = int(beside_weights(model)) if beside_weights is not None else 0
    is_split = _is_split(config, work.num_devices)
    if is_split:
        raise_all(problems(config, family), where="sharding")
    found = forecast(config, family, model, work.steps, is_start=work.is_start)
    usual = found if work.usual is None else forecast(config, family, model, [StepShape((work.usual,))], update=False)
    flops = float(usual.flops * work.passes)
    if is_split:
        busy = forecast(config, family, model, work.steps, update=False)  # where an update would be the peak
        found = split(config, family, model, (found, busy), work.num_devices)
    return {
        "trainable_parameters": found.trained,
        "frozen_parameters": found.frozen,
        "memory_bytes": found.parts,
        "peak_bytes": found.peak_bytes,
        "host_bytes": _host(config, found, work),
        "disk_bytes": _disk(config, found, beside),
        "flops": flops,
        "cards": on_cards(found.peak_bytes, flops, devices=work.num_devices, **_bus(config, found, work)),
    }


def _is_split(config: StageConfig, num_devices: int) -> bool:
    return config.sharding != "off" and num_devices > 1


def _split_notes(config: StageConfig, num_devices: int) -> list[str]:
    if not _is_split(config, num_devices):
        return []
    return [
        t("with split weights a device's memory is reckoned from sizes, and the time to exchange them is not counted")
    ]


def _host(config: StageConfig, found: Forecast, work: _Work) -> int:
    """The host's memory of all processes: while weights are read, while training, or while the result is written.

    Files are mapped once for all, and what a process keeps of them is copied part by part. Process 0 alone writes.
    """
    is_split = _is_split(config, work.num_devices)
    batches = [batch for step in work.steps for batch in step.batches]
    pictures = max(sum(batch[name].nbytes for name in _PICTURES if name in batch) for batch in batches)
    ahead = max(1, config.workers) * config.prefetch_batches
    each = config.pixel_cache_bytes + ahead * pictures + (found.peak_bytes if work.is_cpu else 0)
    copies = 1 if is_split else work.num_devices  # of what is offloaded: split weights are on the host once
    offloaded = found.host_bytes * copies
    masters = _MASTER_BYTES * found.trained * copies if config.offload_optimizer else 0

    def on_cpu(*names: str) -> int:
        return work.num_devices * sum(found.parts.get(name, 0) for name in names) if work.is_cpu else 0

    loading = work.stored_bytes + on_cpu(memory.TRAINED, memory.FROZEN, GATHERED) + masters
    if config.lora is not None and config.lora.quantize is not None:  # packed on the host
        loading += work.num_devices * found.parts[memory.FROZEN]
    size = COMPUTE_DTYPES[config.precision].itemsize
    writing = offloaded - masters + on_cpu(memory.TRAINED, memory.FROZEN, memory.OPTIMIZER)
    if config.stage != 1:  # the gradients, as large as the masters, are gone by then
        writing += min(size * (found.trained + found.frozen), DEFAULT_SHARD_BYTES)
    if is_split:
        writing += _MASTER_BYTES * found.trained + size * found.frozen
    return host_bytes(work.num_devices, loading, work.num_devices * each + offloaded, writing)


def _bus(config: StageConfig, found: Forecast, work: _Work) -> dict[str, float]:
    """What offloading moves (gradients down after a pass, weights up after a step), and what the host updates."""
    if not config.offload_optimizer:
        return {}
    size = float(COMPUTE_DTYPES[config.precision].itemsize * found.trained)
    passes = work.passes / work.num_devices
    if _is_split(config, work.num_devices):
        size /= work.num_devices
    steps = work.samples / (config.global_batch or config.per_device_batch_size)
    return {"moved_bytes": size * (passes + steps), "host_updates": found.trained * steps}


def _disk(config: StageConfig, found: Forecast, beside: int) -> int:
    """States while training, or one and the result; what stage 1 writes is written in two formats.

    Args:
        beside: bytes of a checkpoint's files besides its weights.
    """
    states = found.state_bytes * (config.save_total_limit + _STATE_COPIES)
    if config.stage == 1:
        return max(states, found.state_bytes * config.save_total_limit + 2 * 4 * found.trained)
    weights = torch.empty((), dtype=COMPUTE_DTYPES[config.precision]).element_size() * (found.trained + found.frozen)
    result, best, settings = weights + beside, 0, config.unified
    if settings is not None:
        best = 2 * (weights + beside) if config.val_data is not None else 0  # the new one is whole before the old goes
        result += weights * (settings.state_dict_file + (settings.ema_decay > 0))
    return best + max(states, found.state_bytes * config.save_total_limit + result)
