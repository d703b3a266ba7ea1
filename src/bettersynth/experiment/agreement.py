"""How alike two models answer: same answers, who is right where, Cohen's kappa, with intervals over questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bettersynth.core.analysis import Agreement
from bettersynth.core.record import Interval
from bettersynth.core.seed import derive_seed
from bettersynth.eval.intervals import wilson
from bettersynth.experiment import stats

Texts = Sequence[Sequence[str]]
"""Per question one answer per seed, as the scorer reads it."""


def agreement(
    a: stats.Matrix, b: stats.Matrix, texts_a: Texts, texts_b: Texts, clusters: Sequence[str], resamples: int
) -> Agreement:
    """Agreement of two models, or of two conditions seed by seed (as many pairs as the smaller has seeds).

    Args:
        a, b: (S, Q) scores in 0-1.
        texts_a, texts_b: (Q, S) answers.
        clusters: (Q,) questions of one cluster are drawn together.

    Source: Cohen 1960; intervals are percentile bootstraps over clusters and seed pairs.
    """
    pairs = min(len(a), len(b))
    right_a, right_b = a[:pairs] > 0.5, b[:pairs] > 0.5
    same = np.array([[x == y for x, y in zip(ta, tb, strict=False)] for ta, tb in zip(texts_a, texts_b, strict=True)]).T
    both_wrong = ~right_a & ~right_b
    cells = [same, right_a & right_b, right_a & ~right_b, ~right_a & right_b, both_wrong, same & both_wrong]
    totals = np.stack([cell.astype(float) for cell in cells], axis=-1)
    sums, draws = totals.sum(axis=(0, 1)), _resampled(totals, clusters, resamples)
    parts = [_interval(sums[n] / same.size, draws[:, n] / draws[:, 6], same.shape[1]) for n in range(5)]
    wrong = _same_wrong(sums, draws)
    return Agreement(
        *parts,
        same_wrong=wrong,
        kappa=_kappa_interval(sums, draws),
        within_a=_within(texts_a),
        within_b=_within(texts_b),
        p_mcnemar=stats.mcnemar(a[0], b[0]) if len(a) == len(b) == 1 else None,
    )


def _resampled(totals: NDArray[np.float64], clusters: Sequence[str], resamples: int) -> NDArray[np.float64]:
    """(R, 7): the six sums of every resample and the number of answers in it."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    pairs, _, kinds = totals.shape
    count = int(index.max()) + 1
    by_cluster = np.zeros((count, pairs, kinds + 1))
    np.add.at(by_cluster, index, np.concatenate([totals, np.ones((*totals.shape[:2], 1))], axis=2).transpose(1, 0, 2))
    rng = np.random.default_rng(derive_seed(0, "agreement"))
    questions = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    seeds = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples)
    drawn = (questions @ by_cluster.reshape(count, -1)).reshape(resamples, pairs, kinds + 1)
    result: NDArray[np.float64] = (drawn * seeds[:, :, None]).sum(axis=1)
    return result


def _interval(value: float, means: NDArray[np.float64], count: int) -> Interval:
    """In percent; Wilson's where a resample cannot differ (nobody or everybody)."""
    if np.ptp(means) < 1e-12:
        low, high = wilson(float(value), count)
    else:
        low, high = (float(q) for q in np.quantile(means, [0.025, 0.975]))
    return Interval(100 * float(value), 100 * low, 100 * high)


def _same_wrong(sums: NDArray[np.float64], draws: NDArray[np.float64]) -> Interval | None:
    if not sums[4]:
        return None
    drawn = draws[draws[:, 4] > 0]
    return _interval(sums[5] / sums[4], drawn[:, 5] / drawn[:, 4], int(sums[4]))


def _kappa(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa from (..., 4) counts: both right, only A, only B, both wrong; NaN where chance agreement is certain."""
    share = cells / cells.sum(axis=-1, keepdims=True)
    right_a, right_b = share[..., 0] + share[..., 1], share[..., 0] + share[..., 2]
    expected = right_a * right_b + (1 - right_a) * (1 - right_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa: NDArray[np.float64] = np.where(
            expected < 1 - 1e-12, (share[..., 0] + share[..., 3] - expected) / (1 - expected), np.nan
        )
    return kappa


def _kappa_interval(sums: NDArray[np.float64], draws: NDArray[np.float64]) -> Interval | None:
    value = float(_kappa(sums[1:5]))
    drawn = _kappa(draws[:, 1:5])
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn) or np.ptp(drawn) < 1e-12:
        return None  # no spread to resample: an interval without width would look like certainty
    low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    return Interval(value, low, high)


def _within(texts: Texts) -> float | None:
    """Mean share of equal answers between two seeds of the same condition, in percent; None with one seed."""
    seeds = len(texts[0])
    if seeds < 2:
        return None
    same = [row[i] == row[j] for row in texts for i in range(seeds) for j in range(i)]
    return 100 * sum(same) / len(same)
