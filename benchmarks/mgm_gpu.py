"""Both stages at a model's true shapes with random weights, on the device there is: how fast, how full, how long.

Neither data nor weights are needed: a micro-batch of random ids and pictures, every sample with one picture and
``plan.TEXT_TOKENS`` tokens of text, goes again and again through the very parts that the trainer uses. Pictures are not
decoded here; what one processor core decodes is measured beside it, and how many keep the device busy follows.

MFU (model FLOPs utilisation): arithmetic of forward and backward pass, towers included, recomputation left out, by the
device's dense peak from its maker's data sheet (``train/machines.py``). On a processor no peak is known.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pictures import draw

Facts = dict[str, Any]
BASELINE = {1: 10_000, 2: 12_000}
"""Samples of the challenge's quick baseline, by stage."""
_RECIPE = "10k"


def settings_of(stage: int, changes: Mapping[str, Any], device: str) -> Any:
    """The track's settings of a stage with our switches, which the track allows."""
    from bettersynth.train.preset import load_preset, stage_settings

    given = {"data": "none", "model_zoo": "none", "device": device, **changes}
    return stage_settings(load_preset(_RECIPE), stage, given).with_devices(1)


def materialised(sizes: str, device: Any) -> Any:
    """A model of these sizes with small random weights on the device, float32 as it is loaded."""
    import torch

    from bettersynth.models.mgm import load
    from bettersynth.models.mgm.family import FAMILY

    model = FAMILY.of_sizes(sizes).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    load.fill_buffers(model)
    return model.to(device)


def random_batch(model: Any, config: Any, device: Any) -> Any:
    """A micro-batch of samples as the plan assumes them, with real numbers in it."""
    import torch

    from bettersynth.models.mgm.family import FAMILY
    from bettersynth.train.plan import TEXT_TOKENS

    length = min(FAMILY.image_tokens(model) + TEXT_TOKENS, config.max_length)
    batch = FAMILY.example_batch(model, config.per_device_batch_size, length, is_packed=config.packing)
    generator = torch.Generator().manual_seed(1)
    vocabulary = len(model.embedding)
    for name in ("input_ids", "target_ids"):
        batch[name] = torch.randint(4, vocabulary, batch[name].shape, generator=generator)
    batch["images"] = torch.randint(0, 256, batch["images"].shape, dtype=torch.uint8, generator=generator)
    return {name: value.to(device) for name, value in batch.items()}


def stage(number: int, sizes: str, changes: Mapping[str, Any], *, steps: int, warm_up: int) -> Facts:
    """Time some updates of one stage."""
    import torch

    from bettersynth.models.mgm.family import FAMILY
    from bettersynth.train import optim
    from bettersynth.train.distributed import Devices
    from bettersynth.train.forecast import StepShape, forecast
    from bettersynth.train.machines import CARDS
    from bettersynth.train.placement import Replicated
    from bettersynth.train.prepare import COMPUTE_DTYPES, prepare_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = settings_of(number, changes, device.type)
    model = materialised(sizes, device)
    prepare_model(config, FAMILY, model)
    placement = Replicated(config, model, Devices(0, 1, device))
    optimizer = optim.build_optimizer(placement.parameters, config)
    batch = random_batch(model, config, device)
    model.train()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = bool(config.tf32)
        torch.cuda.reset_peak_memory_stats(device)
    accumulate = config.gradient_accumulation_steps or 1

    def update() -> float:
        for _ in range(accumulate):
            with torch.autocast(device.type, COMPUTE_DTYPES[config.precision], enabled=config.precision != "fp32"):
                output = FAMILY.loss(model, batch)
            (output.loss_sum / (accumulate * output.num_targets)).backward()
        placement.collect()
        grads = placement.reduce()
        torch._foreach_mul_(grads, optim.clip_factor(placement.norm(grads), config.max_grad_norm))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        placement.refresh()
        return float(output.loss_sum.detach() / output.num_targets)

    for _ in range(warm_up):
        update()
    before = time.perf_counter()
    losses = [update() for _ in range(steps)]  # each reads a number, so that nothing is still running at the end
    seconds = time.perf_counter() - before
    samples = steps * accumulate * config.per_device_batch_size
    plain = config.model_copy(update={"gradient_checkpointing": False})
    shape = StepShape((batch_on_host(batch),))
    one_pass = forecast(plain, FAMILY, FAMILY.of_sizes(sizes), [shape], update=False).flops
    rate = samples / seconds
    flops = one_pass / config.per_device_batch_size * rate
    card = next((c for c in CARDS if device.type == "cuda" and c.name in torch.cuda.get_device_name(device)), None)
    return {
        "micro_batch": config.per_device_batch_size,
        "accumulation": accumulate,
        "samples_per_s": round(rate, 3),
        "model_tflops_per_s": round(flops / 1e12, 3),
        "mfu": None if card is None else round(flops / (card.tflops * 1e12), 3),
        "peak_device_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None,
        "baseline_minutes": round(BASELINE[number] / rate / 60, 2),
        "last_loss": losses[-1],
    }


def batch_on_host(batch: Mapping[str, Any]) -> Facts:
    """A batch for shapes alone."""
    return {name: value.cpu() for name, value in batch.items()}


def decoding(folder: Path, side: int, count: int = 24) -> float:
    """Pictures that one core makes ready in a second."""
    from bettersynth.media.open import open_image
    from bettersynth.media.resize import to_square_pixels

    paths = draw(folder, count, (640, 480))
    before = time.process_time()
    for path in paths:
        to_square_pixels(open_image(path), size_px=side, aspect_ratio="pad")
    return count / (time.process_time() - before)


def measure(
    sizes: str = "mgm_2b", *, micro_batches: tuple[int, ...] = (16, 32), steps: int = 3, warm_up: int = 2
) -> Facts:
    """Both stages with each micro-batch; layers recomputed, samples packed.

    Stage 2's batch of 128 and stage 1's of 256 are accumulated from the micro-batches.
    """
    import torch

    from bettersynth.models.mgm import load

    side = load.preset_config(sizes).image_size_aux
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts: Facts = {"sizes": sizes, "device": name, "asked": "MFU 0.40, target 0.50; the baseline in 15 minutes"}
    for micro_batch in micro_batches:
        for number in (1, 2):
            changes = {"per_device_batch_size": micro_batch, "packing": True, "gradient_checkpointing": True}
            try:
                found = stage(number, sizes, changes, steps=steps, warm_up=warm_up)
            except torch.cuda.OutOfMemoryError:
                found = {"micro_batch": micro_batch, "failed": "out of memory"}
            facts[f"stage {number}, micro-batch {micro_batch}"] = found
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        facts["pictures_per_core_s"] = round(decoding(Path(folder), side), 1)
    best = {
        number: min(
            (
                row["baseline_minutes"]
                for key, row in facts.items()
                if key.startswith(f"stage {number}") and "mfu" in row
            ),
            default=None,
        )
        for number in (1, 2)
    }
    if None not in best.values():
        facts["baseline_minutes"] = round(sum(best.values()), 2)
    return facts
