"""How far a run is: shards, rows of every operator so far, rate, and time left in the stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bettersynth.engine.jobs import StepCount


@dataclass(frozen=True)
class StepProgress:
    """Rows of one operator so far; ``rows_per_cpu_s`` is its speed on one core."""

    operator: str
    rows_in: int
    kept: int
    dropped: int
    quarantined: int
    rows_per_cpu_s: float


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``shards_done`` of ``shards`` in stage ``stage`` of ``stages`` (from 1).

    ``rows_per_s`` and ``left_s`` are of this stage; both are 0 until a shard of it has been computed.
    """

    stage: int
    stages: int
    operators: tuple[str, ...]
    shards_done: int
    shards: int
    cached: int
    quarantined: int
    dropped: int = 0
    seconds: float = 0.0
    rows_per_s: float = 0.0
    left_s: float = 0.0
    steps: tuple[StepProgress, ...] = ()


class StageMeter:
    """Counts one stage.

    Args:
        stage, stages: its number, from 1, and how many there are.
        operators: names for people.
        shards: how many shards it has.
        cached: markers of the shards that were done already.
        before: markers of the stages before it.
    """

    def __init__(
        self,
        stage: int,
        stages: int,
        operators: tuple[str, ...],
        shards: int,
        cached: Sequence[Mapping[str, Any]],
        before: Sequence[Mapping[str, Any]],
    ) -> None:
        self._head = (stage, stages, operators)
        self._shards, self._cached, self._done, self._rows = shards, len(cached), 0, 0
        self._totals: dict[tuple[int, str], StepCount] = {}
        self._here: set[tuple[int, str]] = set()
        self._quarantined = 0
        self._started = time.monotonic()
        for marker in before:
            self._count(marker)
        self._here.clear()
        for marker in cached:
            self._count(marker)

    def _count(self, marker: Mapping[str, Any]) -> None:
        self._here.update(add_counts(self._totals, marker))
        self._quarantined += len(marker["quarantine"])

    def add(self, marker: Mapping[str, Any]) -> None:
        """A shard is done."""
        self._count(marker)
        self._done += 1
        self._rows += max((count["rows_in"] for _, _, count in marker["counts"]), default=0)

    def now(self) -> Progress:
        """The state after the shards that were added."""
        seconds = time.monotonic() - self._started
        ready = self._done > 0 and seconds > 0
        steps = tuple(_step(key[1], self._totals[key]) for key in sorted(self._here))
        return Progress(
            *(*self._head, self._cached + self._done, self._shards, self._cached, self._quarantined),
            dropped=sum(sum(count.dropped.values()) for count in self._totals.values()),
            seconds=seconds,
            rows_per_s=self._rows / seconds if ready else 0.0,
            left_s=(self._shards - self._cached - self._done) * seconds / self._done if ready else 0.0,
            steps=steps,
        )


def add_counts(totals: dict[tuple[int, str], StepCount], marker: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Add a marker's counts to the totals; returns the steps it has."""
    for step, name, count in marker["counts"]:
        total = totals.setdefault((step, name), StepCount())
        for reason, number in count["dropped"].items():
            total.dropped[reason] = total.dropped.get(reason, 0) + number
        for field in ("rows_in", "rows_out", "quarantined", "changed", "rows_made", "cpu_s"):
            setattr(total, field, getattr(total, field) + count[field])
    return [(step, name) for step, name, _ in marker["counts"]]


def totals_of(markers: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], StepCount]:
    """The counts of every step over all markers, in the order of the steps."""
    totals: dict[tuple[int, str], StepCount] = {}
    for marker in markers:
        add_counts(totals, marker)
    return dict(sorted(totals.items()))


def _step(name: str, count: StepCount) -> StepProgress:
    dropped = sum(count.dropped.values())
    rate = count.rows_in / count.cpu_s if count.cpu_s > 0 else 0.0
    return StepProgress(name, count.rows_in, count.rows_out, dropped, count.quarantined, rate)
