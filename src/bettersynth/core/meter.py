"""Measure what a stage costs: wall seconds, CPU seconds of this process and its finished children, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from types import TracebackType

from bettersynth.core.record import StageCost


def cpu_seconds() -> float:
    """User plus system seconds of this process and of its children that have ended and been waited for."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_rss_bytes() -> int:
    """Largest resident size that this process, or any one finished child, ever had."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit


class Meter:
    """Context manager; read :attr:`cost` after the block.

    >>> with Meter("nothing") as meter:
    ...     pass
    >>> meter.cost.stage
    'nothing'
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.cost = StageCost(stage, 0.0, 0.0)

    def __enter__(self) -> Meter:
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, cpu = time.perf_counter() - self._wall, cpu_seconds() - self._cpu
        self.cost = StageCost(self.stage, round(wall, 3), round(cpu, 3), peak_rss_bytes=peak_rss_bytes())
