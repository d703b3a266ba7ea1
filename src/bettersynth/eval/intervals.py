"""Confidence intervals of one score: bootstrap over questions, pictures with several questions kept together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bettersynth.core.record import Interval
from bettersynth.core.seed import derive_seed

RESAMPLES = 2000
_CHUNK_CELLS = 4_000_000


def cluster_sums(
    values: NDArray[np.float64], clusters: Sequence[str] | None, weights: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sum and total weight per cluster, each (clusters,); without clusters every value is its own."""
    each = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    if clusters is None:
        return values * each, each
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(index, weights=values * each).astype(np.float64)
    return sums, np.bincount(index, weights=each).astype(np.float64)


def bootstrap_means(
    values: ArrayLike,
    *,
    clusters: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Means of resampled question sets, (resamples,); whole clusters are drawn, e.g. all questions on one picture.

    With weights these are ratios, sum of weight times value over sum of weights; NaN where a resample has no weight.
    """
    array = np.asarray(values, dtype=np.float64)
    sums, counts = cluster_sums(array, clusters, weights)
    rng = np.random.default_rng(derive_seed(seed, "bootstrap over questions"))
    size = len(sums)
    means = np.empty(resamples)
    step = max(1, _CHUNK_CELLS // max(1, size))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, size, size=(min(step, resamples - start), size), dtype=np.int32)
        with np.errstate(invalid="ignore"):
            means[start : start + step] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def bootstrap_interval(
    values: ArrayLike,
    *,
    clusters: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the (weighted) mean of scores in 0-1.

    When all scores are equal a bootstrap has no width; Wilson's interval is given instead, so that 0 of 20 right does
    not look certain.

    Source: Efron & Tibshirani 1993, ch. 13 (percentile); Wilson 1927; clusters: Miller 2024, arXiv:2411.00640, 2.2.

    Raises:
        ValueError: no values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values to average")
    each = np.ones_like(array) if weights is None else np.asarray(weights, dtype=np.float64)
    counted = array[each > 0]
    if counted.size == 0:
        return Interval(0.0, 0.0, 1.0, level)
    mean = float((array * each).sum() / each.sum()) if weights is not None else float(array.mean())
    if np.ptp(counted) == 0.0:
        low, high = wilson(mean, counted.size, level)
        return Interval(mean, low, high, level)
    means = bootstrap_means(array, clusters=clusters, weights=weights, resamples=resamples, seed=seed)
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level)


def wilson(rate: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion ``rate`` of ``count`` trials.

    >>> [round(x, 3) for x in wilson(0.0, 20)]
    [0.0, 0.161]
    """
    from statistics import NormalDist

    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = (z2 / (1 + z2 / count)) * ((rate * (1 - rate) / count / z2 + 1 / (4 * count * count)) ** 0.5)
    return max(0.0, centre - half), min(1.0, centre + half)


def scaled(interval: Interval, factor: float) -> Interval:
    """The interval in another unit, e.g. 0-1 to percent with ``factor`` 100."""
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor, interval.level)


def is_at_chance(interval: Interval, chance: float) -> bool:
    """True unless the whole interval lies above chance; a score below chance is no better founded than one at it."""
    return interval.low <= chance
