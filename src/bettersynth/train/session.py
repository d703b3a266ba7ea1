"""How a run treats the process it lives in: kernels, matrix precision and signals, all put back afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from bettersynth.config.train import StageConfig


@contextmanager
def reproducible(config: StageConfig, device: torch.device) -> Iterator[None]:
    """Deterministic kernels on the CPU and the wanted matrix precision, for the time of the run; all put back after."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    was_filled = torch.utils.deterministic.fill_uninitialized_memory
    was_tf32 = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Kernels write all of what they return; filling fresh memory before costs a small model 7 % of its step.
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = was_filled
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = was_tf32


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for a stop after the current step; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
