from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.core.record import Interval
from bettersynth.eval.intervals import bootstrap_interval, bootstrap_means, is_at_chance, scaled


@given(st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]), min_size=1, max_size=40))
def test_interval_holds_the_mean_and_stays_in_range(values):
    interval = bootstrap_interval(values, resamples=200)
    assert 0 <= interval.low <= interval.value + 1e-12 and interval.value - 1e-12 <= interval.high <= 1
    assert interval.value == pytest.approx(np.mean(values))


def test_same_seed_same_interval_other_seed_another():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_questions_on_one_picture_make_the_interval_wider():
    rng = np.random.default_rng(0)
    per_picture = (rng.random(60) < 0.5).astype(float)
    values, clusters = np.repeat(per_picture, 5), [str(n) for n in range(60) for _ in range(5)]
    plain, kept = bootstrap_interval(values), bootstrap_interval(values, clusters=clusters)
    assert (kept.high - kept.low) / (plain.high - plain.low) == pytest.approx(5**0.5, rel=0.15)


def test_chunks_do_not_change_the_draws():
    values = np.random.default_rng(0).random(5000)
    assert len(bootstrap_means(values, resamples=1001)) == 1001


def test_nothing_right_is_not_certain():
    interval = bootstrap_interval(np.zeros(20))
    assert interval.low == 0.0 and interval.high == pytest.approx(0.161, abs=1e-3)


def test_coverage_is_near_nominal():
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(300):
        interval = bootstrap_interval(rng.random(150) < 0.4, resamples=400, seed=trial)
        hits += interval.low <= 0.4 <= interval.high
    assert 0.91 <= hits / 300 <= 0.98


def test_at_chance_means_not_clearly_above_it():
    assert is_at_chance(Interval(0.3, 0.24, 0.36), 0.25)
    assert is_at_chance(Interval(0.1, 0.05, 0.15), 0.25)
    assert not is_at_chance(Interval(0.3, 0.26, 0.34), 0.25)
    assert scaled(Interval(0.3, 0.26, 0.34), 100) == Interval(30.0, 26.0, 34.0)


def test_weights_make_a_ratio():
    import numpy as np

    from bettersynth.eval.intervals import bootstrap_interval

    rng = np.random.default_rng(0)
    scores, weights = (rng.random(400) < 0.7).astype(float), rng.choice([0.0, 1.0, 2.0], 400)
    found = bootstrap_interval(scores, weights=weights, resamples=500)
    assert found.value == pytest.approx((scores * weights).sum() / weights.sum()) and found.low < 0.7 < found.high
    assert found.high - found.low < 0.15
    nothing = bootstrap_interval([1.0, 0.0], weights=[0.0, 0.0])
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    one = bootstrap_interval([1.0, 0.0, 0.0], weights=[1.0, 0.0, 0.0])
    assert one.value == 1.0 and one.low < 0.3  # one counted question proves little
