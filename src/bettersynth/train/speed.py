"""What a training's log says about its speed and memory besides samples per second."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bettersynth.models.family import ModelFamily
from bettersynth.train.distributed import Devices
from bettersynth.train.machines import card_tflops


class Speed:
    """Tokens per second, memory, and how much of the devices' peak the model's arithmetic makes.

    Args:
        lengths: tokens of every sample: attention's share of the arithmetic follows from their squares.
    """

    def __init__(self, family: ModelFamily, model: nn.Module, lengths: Sequence[int], devices: Devices) -> None:
        self._device = devices.device
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else ""
        peak, count = card_tflops(name), getattr(family, "training_flops", None)
        self._share_per_token: float | None = None
        if peak is not None and count is not None and len(lengths):
            tokens = sum(lengths)
            flops = count(model, tokens, sum(length**2 for length in lengths)) / tokens
            self._share_per_token = flops / (peak * 1e12 * devices.world)

    def facts(self, tokens_per_s: float) -> dict[str, Any]:
        """The fields of a log line."""
        mfu = None if self._share_per_token is None else round(tokens_per_s * self._share_per_token, 4)
        return {"tokens_per_s": round(tokens_per_s, 1), "memory_bytes": self._memory(), "mfu": mfu}

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
