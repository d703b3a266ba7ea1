"""Statistics of comparisons as plain functions: paired over questions and seeds, corrected for many tests, tie allowed.

Scores of one condition under one protocol are a matrix (S, Q): S training seeds, Q questions, values in 0-1. Both
conditions of a comparison answer the same questions; with the same seeds, row s of one is paired with row s of the
other. Two things make a difference uncertain: other questions could have been asked, and training could have been
started from other seeds. Both are resampled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.record import Interval
from bettersynth.core.seed import derive_seed
from bettersynth.eval.intervals import wilson

Matrix = NDArray[np.float64]
RESAMPLES = 2000
_EXACT_PERMUTATIONS = 14
"""Up to 2**14 sign patterns are enumerated; more are drawn at random."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference ``b - a`` in the scores' unit, its interval and two-sided p-value, and their ingredients."""

    interval: Interval
    p_value: float
    standard_error: float
    degrees: float
    num_seeds: int


def as_matrix(scores: ArrayLike) -> Matrix:
    """(S, Q) scores; a single row may be given flat.

    Raises:
        DataError: empty, or more than two dimensions.
    """
    matrix = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise DataError(t("scores must be a table of seeds by questions"), got=str(matrix.shape))
    return matrix


def cluster_columns(scores: ArrayLike, clusters: Sequence[str]) -> Matrix:
    """(S, Q) scores to (S, C): one column per cluster of questions, e.g. per picture, with the same mean.

    A column holds the mean of all questions plus how far its cluster's sum lies from it, so that the variance between
    columns is the cluster-robust variance of the mean, however unequal the clusters are. What is computed from the
    columns then treats clusters, not questions, as what could have been drawn otherwise.

    Source: linearisation of a ratio mean, Woodruff 1971, JASA 66; clusters in evaluation: Miller 2024,
    arXiv:2411.00640, 2.2.

    >>> cluster_columns([1, 0, 0], ["p", "p", "q"]).round(3).tolist()
    [[0.556, 0.111]]
    """
    matrix = as_matrix(scores)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    mean = matrix.mean(axis=1, keepdims=True)
    sums = np.zeros((len(matrix), int(index.max()) + 1))
    np.add.at(sums.T, index, (matrix - mean).T)
    columns: Matrix = mean + sums * (sums.shape[1] / matrix.shape[1])
    return columns


# ---------------------------------------------------------------- uncertainty of one condition and of a difference


def mean_interval(scores: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of a condition's mean over its seeds and the questions, (S, Q); Wilson's when all scores are equal.

    Source: the calibrated hierarchical bootstrap of :func:`paired_difference`.
    """
    matrix = as_matrix(scores)
    if np.ptp(matrix) == 0.0:  # nothing to resample; as many questions give this much certainty at best
        return Interval(float(matrix.mean()), *wilson(float(matrix.mean()), matrix.shape[1], level), level)
    draws = _resampled(matrix.shape[0], matrix.shape[1], resamples, seed)
    means = _bootstrap(matrix, *draws)
    error, degrees = _standard_error([matrix], matrix.mean(axis=0))
    return _within(_calibrated(float(matrix.mean()), means, error, degrees, level), matrix)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    is_seed_paired: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference ``mean(b) - mean(a)`` with an interval that covers other questions and other seeds.

    Questions and seeds are resampled at once (hierarchical, "pigeonhole" bootstrap). With the handful of seeds that one
    can afford, a plain percentile interval is too narrow in the seeds and too wide in the noise of single answers; so
    its two arms are rescaled to the standard error of the two-way random-effects model, and to Student's t with
    Satterthwaite's degrees of freedom. The p-value is that t's.

    Args:
        a, b: (S_a, Q) and (S_b, Q); column q is the same question in both.
        is_seed_paired: row s of both comes from the same seed (same initialisation and order); needs S_a == S_b.

    Raises:
        DataError: different questions, or paired seeds of different number.

    Source: Owen 2007 (pigeonhole bootstrap), Ann. Appl. Stat. 1(2); Hesterberg 2015, arXiv:1411.5279, 5.1 (expanded
    percentiles for small samples); Satterthwaite 1946; variance components as in a two-way analysis of variance.
    """
    first, second = _same_questions(a, b)
    paired = _is_paired(first, second, is_seed_paired)
    value, error, degrees = _estimate(first, second, paired)
    seeds, questions = _resampled(first.shape[0], first.shape[1], resamples, seed)
    if paired:
        means = _bootstrap(second - first, seeds, questions)
    else:
        other_seeds, _ = _resampled(second.shape[0], 1, resamples, derive_seed(seed, "other seeds"))
        means = _bootstrap(second, other_seeds, questions) - _bootstrap(first, seeds, questions)
    interval = _calibrated(value, means, error, degrees, level)
    return Difference(interval, t_test(value, error, degrees), error, degrees, min(first.shape[0], second.shape[0]))


def paired_p_value(a: ArrayLike, b: ArrayLike, *, is_seed_paired: bool = True) -> float:
    """The p-value of :func:`paired_difference` without its interval; for tables of many pairs."""
    first, second = _same_questions(a, b)
    return t_test(*_estimate(first, second, _is_paired(first, second, is_seed_paired)))


def _same_questions(a: ArrayLike, b: ArrayLike) -> tuple[Matrix, Matrix]:
    first, second = as_matrix(a), as_matrix(b)
    if first.shape[1] != second.shape[1]:
        raise DataError(
            t("the two conditions did not answer the same questions"),
            got=f"{first.shape[1]}, {second.shape[1]}",
            expected=t("scores on the same questions, in the same order"),
        )
    return first, second


def _is_paired(first: Matrix, second: Matrix, wished: bool) -> bool:
    if wished and first.shape[0] != second.shape[0]:
        raise DataError(
            t("paired seeds need the same seeds in both conditions"), got=f"{first.shape[0]}, {second.shape[0]}"
        )
    return wished


def _estimate(first: Matrix, second: Matrix, paired: bool) -> tuple[float, float, float]:
    """Difference of means, its standard error and degrees of freedom."""
    per_question = second.mean(axis=0) - first.mean(axis=0)
    error, degrees = _standard_error([second - first] if paired else [first, second], per_question)
    return float(per_question.mean()), error, degrees


@lru_cache(maxsize=2)
def _resampled(
    num_seeds: int, num_questions: int, resamples: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each seed (R, S) and each question (R, Q) is drawn in every resample."""
    rng = np.random.default_rng(derive_seed(seed, "hierarchical bootstrap"))
    seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=resamples)
    return seeds, rng.multinomial(num_questions, np.full(num_questions, 1 / num_questions), size=resamples)


def _bootstrap(matrix: Matrix, seeds: NDArray[np.int64], questions: NDArray[np.int64]) -> Matrix:
    """Means of all resamples, (R,): weights of seeds x weights of questions on the table."""
    weighted = (questions @ matrix.T) * seeds
    means: Matrix = weighted.sum(axis=1) / matrix.size
    return means


def _standard_error(tables: Sequence[Matrix], per_question: Matrix) -> tuple[float, float]:
    """Standard error of the mean (or of a difference of means) and its degrees of freedom.

    Variance between questions of the seed means, plus variance between seeds of the question means, minus the noise of
    single answers, which both contain. With one seed only the questions vary.
    """
    count = per_question.size
    by_question = float(per_question.var(ddof=1)) / count if count > 1 else 0.0
    parts = [(by_question, max(1, count - 1))]
    noise = 0.0
    for table in tables:
        rows, columns = table.shape
        if rows < 2 or columns < 2:
            continue
        parts.append((float(table.mean(axis=1).var(ddof=1)) / rows, rows - 1))
        centred = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        noise += float((centred**2).sum()) / ((rows - 1) * (columns - 1)) / table.size
    total = sum(variance for variance, _ in parts)
    # Components are estimates: the subtraction must not take the sum below its largest part.
    variance = max(total - noise, max(part for part, _ in parts))
    if variance == 0.0:
        return 0.0, float(max(1, count - 1))
    degrees = variance**2 / sum(part**2 / free for part, free in parts if part) if total else 1.0
    return math.sqrt(variance), max(1.0, degrees)


def _within(interval: Interval, scores: Matrix) -> Interval:
    """The interval without what no mean of scores in 0-1 can be. Other units are left alone."""
    if scores.min() < 0.0 or scores.max() > 1.0:
        return interval
    return Interval(interval.value, max(0.0, interval.low), min(1.0, interval.high), interval.level)


def _calibrated(value: float, means: Matrix, error: float, degrees: float, level: float) -> Interval:
    """Percentile arms of the bootstrap, rescaled to the standard error and to Student's t."""
    from scipy.special import ndtri, stdtrit

    spread = float(means.std())
    if error == 0.0 or spread == 0.0:
        return Interval(value, value, value, level)
    low, high = np.quantile(means - means.mean(), [(1 - level) / 2, (1 + level) / 2])
    scale = error / spread * float(stdtrit(degrees, (1 + level) / 2) / ndtri((1 + level) / 2))
    return Interval(value, value + float(low) * scale, value + float(high) * scale, level)


# ---------------------------------------------------------------- tests


def t_test(value: float, standard_error: float, degrees: float) -> float:
    """Two-sided p-value of a mean difference.

    >>> t_test(0.0, 1.0, 4), round(t_test(2.776, 1.0, 4), 3)
    (1.0, 0.05)
    """
    from scipy.special import stdtr

    if standard_error == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return float(2 * stdtr(degrees, -abs(value) / standard_error))


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact McNemar test of two models' right and wrong answers to the same questions (one seed each).

    Args:
        a, b: (Q,) scores; above 0.5 counts as right.

    Source: McNemar 1947, exact binomial form (Edwards 1948 discusses the approximation that is avoided here).

    >>> mcnemar([1] * 6 + [0], [0] * 6 + [0]), mcnemar([1, 0], [0, 1])
    (0.03125, 1.0)
    """
    first, second = np.asarray(a, dtype=np.float64) > 0.5, np.asarray(b, dtype=np.float64) > 0.5
    if first.shape != second.shape:
        raise DataError(t("the two conditions did not answer the same questions"))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    if total == 0:
        return 1.0
    tail = term = 1
    for k in range(min(only_first, only_second)):
        term = term * (total - k) // (k + 1)
        tail += term
    return float(min(1.0, 2 * tail / 2**total))


def seed_permutation(a: Sequence[float], b: Sequence[float], *, resamples: int = 20_000, seed: int = 0) -> float:
    """Two-sided sign-flip test of paired per-seed scores; exact for up to 14 seeds.

    With S seeds no p-value below ``2 / 2**S`` is possible: five seeds cannot reach 0.05 this way (0.0625), six can.

    Source: Fisher 1935 (randomisation test); Good 2005, ch. 3.

    >>> seed_permutation([0, 0, 0, 0, 0, 0], [1, 2, 1, 2, 1, 2])
    0.03125
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    count = len(difference)
    if count == 0:
        return 1.0
    observed = abs(difference.sum())
    tolerance = 1e-12 * max(1.0, observed)
    if count <= _EXACT_PERMUTATIONS:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        sums = np.abs(((1 - 2 * bits) * difference).sum(axis=1))
        return float((sums >= observed - tolerance).mean())
    signs = np.random.default_rng(derive_seed(seed, "sign flips")).choice((-1.0, 1.0), size=(resamples, count))
    extreme = int((np.abs(signs @ difference) >= observed - tolerance).sum())
    return (extreme + 1) / (resamples + 1)


def seed_t_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Paired t test over seeds alone (questions taken as fixed), two-sided; 1.0 with a single seed.

    Source: Student 1908; advised for seeds by Bouthillier et al. 2021, arXiv:2103.03098.
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if len(difference) < 2:
        return 1.0
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return t_test(float(difference.mean()), error, len(difference) - 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: adjusted p-values that control the chance of any false claim in the family.

    Source: Holm 1979, Scand. J. Stat. 6(2).

    >>> holm({"x": 0.01, "y": 0.04, "z": 0.03})
    {'x': 0.03, 'y': 0.06, 'z': 0.06}
    """
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


# ---------------------------------------------------------------- what may be said


def relative_gain(
    a: ArrayLike, b: ArrayLike, *, chance: float = 0.0, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """``100 * (mean(b) - mean(a)) / mean(a)`` in percent with its bootstrap interval, or None where it means nothing.

    It means nothing when ``a`` is not clearly above ``chance``: a ratio to noise can be made as large as one likes.
    Percentile interval over questions and (paired, when equally many) seeds.

    Source: Efron & Tibshirani 1993, 13.3; compare Fieller 1954.
    """
    first, second = as_matrix(a), as_matrix(b)
    if mean_interval(first, level=level, resamples=resamples, seed=seed).low <= chance or first.mean() <= 0:
        return None
    seeds, questions = _resampled(first.shape[0], first.shape[1], resamples, seed)
    others = seeds
    if first.shape[0] != second.shape[0]:
        others, _ = _resampled(second.shape[0], 1, resamples, derive_seed(seed, "other seeds"))
    below, above = _bootstrap(first, seeds, questions), _bootstrap(second, others, questions)
    if (below <= 0).any():
        return None
    low, high = np.quantile(100 * (above / below - 1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(100 * float(second.mean() / first.mean() - 1), float(low), float(high), level)


def verdict(difference: float, p_value: float, *, a_at_chance: bool, b_at_chance: bool, alpha: float = 0.05) -> str:
    """``better``, ``worse`` or ``tie`` of b against a, or ``at chance`` when neither is clearly above it.

    A "gain" that ends at chance is not called one.

    >>> verdict(0.1, 0.2, a_at_chance=False, b_at_chance=False), verdict(0.1, 0.01, a_at_chance=True, b_at_chance=True)
    ('tie', 'at chance')
    """
    if a_at_chance and b_at_chance:
        return "at chance"
    if p_value >= alpha or difference == 0.0:
        return "tie"
    if difference > 0:
        return "at chance" if b_at_chance else "better"
    return "at chance" if a_at_chance else "worse"


def ranks(names: Sequence[str], means: Mapping[str, float], better: Mapping[tuple[str, str], bool]) -> dict[str, int]:
    """Rank of each condition: one more than the number of conditions that are clearly better; so ties share a rank.

    Args:
        means: mean score, orders the result.
        better: (x, y) to whether x is clearly better than y; absent pairs count as no.

    >>> ranks(["a", "b", "c"], {"a": 3, "b": 2, "c": 1}, {("a", "c"): True})
    {'a': 1, 'b': 1, 'c': 2}
    """
    ordered = sorted(names, key=lambda name: (-means[name], name))
    return {name: 1 + sum(better.get((other, name), False) for other in names) for name in ordered}
