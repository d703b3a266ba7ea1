"""What a device holds of a training whose weights are split, reckoned from the sizes of the units.

A step by shapes (:mod:`.forecast`) runs in one process and so holds everything; here its activations are kept, and
weights, gradients and optimiser states are counted as :mod:`.sharding` spreads them.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.models.family import ModelFamily, ShardUnits
from bettersynth.train import memory
from bettersynth.train.forecast import Forecast
from bettersynth.train.prepare import COMPUTE_DTYPES

GATHERED = "gathered_weights"
_MASTER, _STATES = 4, 8
"""Bytes of a trained parameter's float32 weight (its gradient takes as many) and of AdamW's two averages."""


def split(
    config: StageConfig, family: ModelFamily, model: nn.Module, found: tuple[Forecast, Forecast], devices: int
) -> Forecast:
    """A forecast of one process as one of several that share the weights.

    Args:
        model: as the forecast left it, frozen and with its low-rank layers.
        found: of a whole step, and of its forward and backward pass alone; the larger activations count.
    """
    whole_step = found[0]
    busiest = max(found, key=lambda one: one.parts[memory.ACTIVATIONS] + one.parts[memory.LOGITS])
    units: ShardUnits = family.shard_units(model)  # type: ignore[attr-defined]
    size = COMPUTE_DTYPES[config.precision].itemsize
    whole = {id(p) for part in units.whole for p in part.parameters()}
    layers = [list(unit.parameters()) for unit in units.modules]
    inside = {id(p) for layer in layers for p in layer}
    rest = [p for p in model.parameters() if id(p) not in inside and id(p) not in whole]
    numbers = [sum(p.numel() for p in group) for group in (*layers, rest)]
    trained = [sum(p.numel() for p in group if p.requires_grad) for group in (*layers, rest)]
    own = sum(trained) / devices
    frozen = (sum(numbers) - sum(trained)) / devices
    kept = sum(buffer.nbytes for buffer in memory.few_bit_buffers(model))
    kept += size * sum(p.numel() for part in units.whole for p in part.parameters())
    on_device = 0 if config.offload_optimizer else 1
    # The layer at work and the next one, which is on its way; everything outside of the layers all the time.
    at_once = sum(numbers) if config.sharding == "grad_op" else numbers[-1] + sum(sorted(numbers[:-1])[-2:])
    parts = {
        memory.TRAINED: round(on_device * _MASTER * own),
        memory.FROZEN: round(kept + on_device * size * frozen),
        GATHERED: size * at_once,
        # Of the layer at work as it is computed and once more in float32 while it is summed.
        memory.GRADIENTS: round(on_device * _MASTER * own + (size + _MASTER) * max(trained)),
        memory.OPTIMIZER: round(on_device * _STATES * own),
        **{name: busiest.parts[name] for name in (memory.ACTIVATIONS, memory.LOGITS, memory.BUFFERS)},
    }
    host = 0 if on_device else (2 * _MASTER + _STATES) * sum(trained) + size * (sum(numbers) - sum(trained))
    return replace(whole_step, parts=parts, peak_bytes=sum(parts.values()), host_bytes=round(host))
