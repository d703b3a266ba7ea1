"""Plain records of what happened: accounting, scores, comparisons, costs.

The report shows them and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with a two-sided confidence interval, in the value's unit."""

    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Accounting:
    """Rows of one operator: ``rows_in + rows_made == rows_out + dropped + quarantined``, always.

    ``rows_made`` counts child rows added by generators and repetition by selectors.
    """

    operator: str
    rows_in: int
    rows_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    quarantined: int = 0
    changed: int = 0
    rows_made: int = 0
    cpu_s: float = 0.0

    def is_balanced(self) -> bool:
        """True when no row is unaccounted for."""
        return self.rows_in + self.rows_made == self.rows_out + sum(self.dropped.values()) + self.quarantined


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage cost; ``gpu_s`` is 0 on a machine without one."""

    stage: str
    wall_s: float
    cpu_s: float
    gpu_s: float = 0.0
    peak_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One score of one checkpoint under one named protocol.

    Args:
        task: benchmark name, e.g. ``textvqa``.
        protocol: what exactly was asked and how it was scored, e.g. ``textvqa-noocr``, ``mmbench-circular``.
        score: the mean over questions as a percentage with its bootstrap interval.
        chance: percentage that answering blindly reaches, and how it was computed in ``chance_method``.
        at_chance: True when the interval does not exclude chance; such a score is never called a gain.
        by_category: category name to percentage and number of questions.
        provenance: checkpoint digest, prompt and decoding digests, predictions digest.
        per_seed: the percentage of each seed, when ``score`` summarises several.
        facts: further figures that the benchmark's own scorer prints, in its units.
    """

    task: str
    protocol: str
    score: Interval
    num_questions: int
    chance: float
    chance_method: str
    at_chance: bool
    by_category: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    per_seed: tuple[float, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two conditions compared on the same questions (and seeds): difference ``b - a`` in points.

    ``verdict`` is one of ``better``, ``worse``, ``tie``, ``at chance``.
    """

    task: str
    protocol: str
    a: str
    b: str
    score_a: Interval
    score_b: Interval
    difference: Interval
    relative_percent: float | None
    p_value: float
    p_value_holm: float | None
    num_seeds: int
    verdict: str


@dataclass(frozen=True, slots=True)
class FilterQuality:
    """How well a recipe removed (or repaired) one class of known noise; only the demo knows the truth."""

    noise: str
    total: int
    dropped: int
    repaired: int
    kept: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for a gallery: data URI is made by the report from ``path``; texts are escaped there."""

    path: str
    caption: str
    before: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """One data set in a report: accounting, distributions before and after, galleries by reason."""

    name: str
    rows: int
    accounting: tuple[Accounting, ...] = ()
    histograms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """stat name -> {"edges": [n+1], "before": [n], "after": [n]}"""
    galleries: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)
    filter_quality: tuple[FilterQuality, ...] = ()
    digest: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """One training stage: its log lines ({step, loss, lr, grad_norm, samples_s}) and its facts."""

    name: str
    stage: int
    log: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Everything a report page shows.

    ``roles`` says what a condition is, for the verdict: ``baseline``, ``strategy`` (the default), ``open`` (outside the
    challenge's rules) or ``reference`` (a ceiling or control). Only strategies and baselines can win.
    The first comparison's protocol is the one that the verdict speaks about first.
    """

    title: str
    command: str
    is_demo: bool
    datasets: tuple[DatasetSummary, ...] = ()
    trainings: tuple[TrainingSummary, ...] = ()
    results: Mapping[str, tuple[EvalResult, ...]] = field(default_factory=dict)
    """condition name -> its scores"""
    comparisons: tuple[Comparison, ...] = ()
    costs: tuple[StageCost, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
