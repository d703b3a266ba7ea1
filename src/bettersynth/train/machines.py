"""From what a step needs to what a machine must have: which card it fits, for how long, what host and disk hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

GIB = 2**30
HOST_BASE_BYTES = 3 * GIB // 2
"""Interpreter, PyTorch with its device libraries, tokenizer: resident in a process before anything is loaded."""
SPARE_RATIO = 0.08
"""Share of a device's memory left to kernels' own workspace, its context and the allocator's fragments."""
EFFICIENCY = 0.40
"""Share of a card's peak that training is assumed to reach in its matrix products. Assumed, not measured."""
BUS_BYTES_PER_S = 12e9
"""Host to device and back, PCIe 4 x16 as it is reached in practice; counts for offloading alone."""
HOST_ADAM_BYTES_PER_S = 20e9
"""What a host's update of offloaded weights reads and writes; 28 bytes a parameter pass through its memory."""
_ADAM_TRAFFIC_BYTES = 28


class Card(NamedTuple):
    """A device to rent: dense bf16 peak in TFLOP/s (makers' data sheets) and memory in GB (10^9) as sold."""

    name: str
    memory_gb: int
    tflops: float


CARDS = (
    Card("RTX 4090", 24, 165.2),
    Card("A10", 24, 125.0),
    Card("L40S", 48, 362.0),
    Card("A100", 80, 312.0),
    Card("H100", 80, 989.4),
    Card("H200", 141, 989.4),
)


def card_tflops(device_name: str) -> float | None:
    """Dense bf16 peak in TFLOP/s of the card that a driver calls by that name; None for others.

    >>> card_tflops("NVIDIA H100 80GB HBM3"), card_tflops("NVIDIA A10G")
    (989.4, None)
    """
    words = re.split(r"[ -]", device_name)
    return next((card.tflops for card in CARDS if card.name.split()[-1] in words), None)


@dataclass(frozen=True, slots=True)
class CardPlan:
    """A stage on one kind of card: whether it fits, and hours on as many of them as planned."""

    name: str
    memory_gb: int
    fits: bool
    hours: float


def on_cards(
    peak_bytes: int, flops: float, *, devices: int = 1, moved_bytes: float = 0.0, host_updates: float = 0.0
) -> tuple[CardPlan, ...]:
    """The stage on every known card.

    Args:
        peak_bytes: most tensor bytes alive on a device.
        flops: of the whole stage, over all devices.
        devices: cards that share the work.
        moved_bytes: bytes that offloading moves over the bus in the whole stage, per device.
        host_updates: parameters updated on the host, times steps.
    """
    waiting_s = moved_bytes / BUS_BYTES_PER_S + host_updates * _ADAM_TRAFFIC_BYTES / HOST_ADAM_BYTES_PER_S
    return tuple(
        CardPlan(
            card.name,
            card.memory_gb,
            fits=peak_bytes <= card.memory_gb * 1e9 * (1 - SPARE_RATIO),
            hours=round((flops / (card.tflops * 1e12 * EFFICIENCY * devices) + waiting_s) / 3600, 2),
        )
        for card in CARDS
    )


def host_bytes(processes: int, *moments: int) -> int:
    """Peak of the host, given what all processes together hold at the moments when it may be."""
    return processes * HOST_BASE_BYTES + max(moments)
