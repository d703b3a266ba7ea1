"""Put the trials of an experiment side by side: means with intervals, paired differences, ranks that may tie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from bettersynth.config.experiment import ExperimentConfig
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.core.record import Comparison, EvalResult, Interval
from bettersynth.eval.intervals import is_at_chance, scaled
from bettersynth.eval.protocol import require_provenance
from bettersynth.experiment import equal_compute, stats
from bettersynth.experiment.trials import TrialResult

Trials = Mapping[str, Mapping[int, TrialResult]]
"""condition -> seed -> result."""


@dataclass(frozen=True)
class ComparisonTable:
    """Everything a comparison found.

    Args:
        results: condition -> one EvalResult per protocol, over all its seeds (``per_seed`` holds the single ones).
        comparisons: the baseline against every other condition, per protocol; Holm-corrected within a protocol.
        tests: beside each comparison (same order): relative gain with interval, seed-level tests.
        ranks: protocol -> condition -> rank, for conditions within the rules; equal ranks are ties.
        roles: condition -> baseline, strategy, open or reference.
        costs: condition -> seconds per trial.
        notes: what a reader must know before quoting a figure.
    """

    name: str
    baseline: str
    results: Mapping[str, tuple[EvalResult, ...]]
    comparisons: tuple[Comparison, ...]
    tests: tuple[Mapping[str, Any], ...]
    ranks: Mapping[str, Mapping[str, int]]
    roles: Mapping[str, str]
    costs: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...] = ()
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scores:
    """The (S, Q) scores of one condition under one protocol; rows follow ``seeds``."""

    table: np.ndarray[Any, np.dtype[np.float64]]
    seeds: tuple[int, ...]
    chance: float
    is_low: bool


def compare(config: ExperimentConfig, trials: Trials) -> ComparisonTable:
    """Compare finished trials.

    Raises:
        ConfigError: ranked conditions had different budgets.
        DataError: a condition without trials, or trials that were asked different questions.
        ProvenanceError: a score that does not say where it comes from.
    """
    missing = [condition.name for condition in config.conditions if not trials.get(condition.name)]
    if missing:
        raise DataError(t("conditions without a finished trial"), got=", ".join(missing))
    names = [condition.name for condition in config.conditions]
    roles = _roles(config)
    spent = {name: equal_compute.spent_by(name, trials[name]) for name in names}
    marked = equal_compute.check(spent, roles)
    protocols = list(trials[config.baseline_name][min(trials[config.baseline_name])].scores)
    results: dict[str, list[EvalResult]] = {name: [] for name in names}
    comparisons: list[Comparison] = []
    tests: list[Mapping[str, Any]] = []
    ranks = {}
    for protocol in protocols:
        scores = _collect(protocol, {name: trials[name] for name in names}, config)
        for name in names:
            results[name].append(_summary(protocol, trials[name], scores[name], config))
        found, beside = _against_baseline(protocol, scores, results, config)
        comparisons += found
        tests += beside
        ranks[protocol] = _ranks(scores, [n for n in names if roles[n] in ("baseline", "strategy")], config.alpha)
    return ComparisonTable(
        config.name,
        config.baseline_name,
        {name: tuple(found) for name, found in results.items()},
        tuple(comparisons),
        tuple(tests),
        ranks,
        roles,
        {name: _cost(trials[name]) for name in names},
        _notes(config, trials, marked),
        {name: {stage: asdict(budget) for stage, budget in stages.items()} for name, stages in spent.items()},
    )


def _roles(config: ExperimentConfig) -> dict[str, str]:
    return {
        c.name: "baseline" if c.name == config.baseline_name and c.role == "strategy" else c.role
        for c in config.conditions
    }


def _collect(protocol: str, trials: Trials, config: ExperimentConfig) -> dict[str, _Scores]:
    """Score tables over the same questions in the same order."""
    reference: list[str] | None = None
    found = {}
    for name, by_seed in trials.items():
        rows = []
        for seed in sorted(by_seed):
            given = by_seed[seed].scores.get(protocol, {})
            reference = sorted(given) if reference is None else reference
            if sorted(given) != reference or not reference:
                raise DataError(
                    t("trials were not asked the same questions"),
                    where=f"{name} seed {seed} {protocol}",
                    got=t("{n} questions", n=len(given)),
                    expected=t("{n} questions", n=len(reference)),
                    hint=t("delete that trial's folder and run again"),
                )
            rows.append([given[question] for question in reference])
        table = np.array(rows)
        first = next(r for r in by_seed[min(by_seed)].results if r.protocol == protocol)
        interval = stats.mean_interval(table, resamples=config.resamples)
        low = is_at_chance(interval, first.chance / 100)
        found[name] = _Scores(table, tuple(sorted(by_seed)), first.chance / 100, low)
    return found


def _summary(
    protocol: str, by_seed: Mapping[int, TrialResult], scores: _Scores, config: ExperimentConfig
) -> EvalResult:
    single = [
        require_provenance(next(r for r in by_seed[seed].results if r.protocol == protocol)) for seed in scores.seeds
    ]
    first = single[0]
    interval = stats.mean_interval(scores.table, resamples=config.resamples)
    categories = {
        name: (float(np.mean([r.by_category[name][0] for r in single])), count)
        for name, (_, count) in first.by_category.items()
    }
    return EvalResult(
        first.task,
        protocol,
        scaled(interval, 100),
        first.num_questions,
        first.chance,
        first.chance_method,
        scores.is_low,
        categories,
        {key: _one_digest([r.provenance[key] for r in single]) for key in first.provenance},
        tuple(r.score.value for r in single),
    )


def _one_digest(values: Sequence[str]) -> str:
    """The common value; the digest of all of them, in seed order, when seeds differ."""
    return values[0] if len(set(values)) == 1 else digest_json(list(values))


def _pair(a: _Scores, b: _Scores) -> tuple[_Scores, _Scores, bool]:
    """Rows of the seeds both have, paired; all rows, unpaired, when they share none."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    if not common:
        return a, b, False
    kept = [
        _Scores(s.table[[s.seeds.index(seed) for seed in common]], tuple(common), s.chance, s.is_low) for s in (a, b)
    ]
    return kept[0], kept[1], True


def _against_baseline(
    protocol: str, scores: Mapping[str, _Scores], results: Mapping[str, Sequence[EvalResult]], config: ExperimentConfig
) -> tuple[list[Comparison], list[Mapping[str, Any]]]:
    base = config.baseline_name
    others = [name for name in scores if name != base]
    pairs = {name: _pair(scores[base], scores[name]) for name in others}
    found = {
        name: stats.paired_difference(a.table, b.table, is_seed_paired=paired, resamples=config.resamples)
        for name, (a, b, paired) in pairs.items()
    }
    corrected = stats.holm({name: difference.p_value for name, difference in found.items()})
    comparisons: list[Comparison] = []
    tests: list[Mapping[str, Any]] = []
    for name in others:
        a, b, paired = pairs[name]
        difference = found[name]
        gain = stats.relative_gain(a.table, b.table, chance=a.chance, resamples=config.resamples)
        word = stats.verdict(
            difference.interval.value, corrected[name], a_at_chance=a.is_low, b_at_chance=b.is_low, alpha=config.alpha
        )
        comparisons.append(
            Comparison(
                results[base][-1].task,
                protocol,
                base,
                name,
                results[base][-1].score,
                results[name][-1].score,
                scaled(difference.interval, 100),
                None if gain is None or word == "at chance" else gain.value,
                difference.p_value,
                corrected[name],
                difference.num_seeds,
                word,
            )
        )
        tests.append({"protocol": protocol, "a": base, "b": name} | _beside(a, b, paired, gain))
    return comparisons, tests


def _beside(a: _Scores, b: _Scores, paired: bool, gain: Interval | None) -> dict[str, Any]:
    """Other tests of the same difference, for readers who trust one more than another."""
    means_a, means_b = a.table.mean(axis=1), b.table.mean(axis=1)
    is_binary = bool(np.isin(a.table, (0.0, 1.0)).all() and np.isin(b.table, (0.0, 1.0)).all())
    return {
        "is_seed_paired": paired,
        "relative_percent": None if gain is None else asdict(gain),
        "p_seed_permutation": stats.seed_permutation(list(means_a), list(means_b)) if paired else None,
        "p_seed_t": stats.seed_t_test(list(means_a), list(means_b)) if paired else None,
        "p_mcnemar": stats.mcnemar(a.table[0], b.table[0]) if is_binary and len(means_a) == len(means_b) == 1 else None,
    }


def _ranks(scores: Mapping[str, _Scores], names: Sequence[str], alpha: float) -> dict[str, int]:
    """Ranks from all pairs, Holm-corrected together; at chance nobody is better than anybody."""
    p_values = {}
    for x, y in combinations(names, 2):
        a, b, paired = _pair(scores[x], scores[y])
        p_values[f"{x}\n{y}"] = stats.paired_p_value(a.table, b.table, is_seed_paired=paired)
    corrected = stats.holm(p_values)
    means = {name: float(scores[name].table.mean()) for name in names}
    better = {}
    for pair, p_value in corrected.items():
        winner, loser = sorted(pair.split("\n"), key=lambda name: -means[name])
        better[winner, loser] = p_value < alpha and means[winner] > means[loser] and not scores[winner].is_low
    return stats.ranks(list(names), means, better)


def _cost(by_seed: Mapping[int, TrialResult]) -> dict[str, float]:
    """Mean seconds per trial, whole and per stage."""
    cost = {
        "cpu_s": round(float(np.mean([trial.cpu_s for trial in by_seed.values()])), 2),
        "wall_s": round(float(np.mean([trial.wall_s for trial in by_seed.values()])), 2),
    }
    stages = dict.fromkeys(stage.stage for trial in by_seed.values() for stage in trial.costs)
    for stage in stages:
        seconds = [c.cpu_s for trial in by_seed.values() for c in trial.costs if c.stage == stage]
        cost[f"cpu_s {stage}"] = round(float(np.mean(seconds)), 2)
    return cost


def _notes(config: ExperimentConfig, trials: Trials, marked: Sequence[str]) -> tuple[str, ...]:
    notes = []
    numbers = sorted({len(trials[condition.name]) for condition in config.conditions})
    if numbers[0] == 1:
        notes.append(t("One seed: the verdicts speak of these checkpoints, not of the strategies."))
    elif numbers[0] != numbers[-1]:
        notes.append(
            t(
                "Conditions have between {low} and {high} seeds; pairs use those in common.",
                low=numbers[0],
                high=numbers[-1],
            )
        )
    for name in marked:
        notes.append(t("{name} was trained with another budget and is not ranked.", name=name))
    if config.split == "dev":
        notes.append(t("Development questions: good for tuning, not for claims."))
    notes += [f"{condition.name}: {condition.note}" for condition in config.conditions if condition.note]
    return tuple(notes)
