from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bettersynth.core.errors import DataError
from bettersynth.experiment.stats import (
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    paired_p_value,
    ranks,
    relative_gain,
    seed_permutation,
    seed_t_test,
    verdict,
)

TABLES = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.sampled_from([0.0, 0.3, 1.0]))


def _world(rng, seeds, questions, *, gain=0.0, seed_spread=0.05):
    """Two conditions with question, seed and answer noise; the true mean difference is ``gain`` (no clipping bites)."""
    base = rng.normal(0.45, 0.12, questions)
    own = base + gain + rng.normal(0, 0.1, questions)
    tables = []
    for means in (base, own):
        chance = np.clip(means + rng.normal(0, seed_spread, (seeds, 1)), 0, 1)
        tables.append((rng.random((seeds, questions)) < chance).astype(float))
    return tables


@settings(deadline=None, max_examples=60)
@given(TABLES)
def test_a_condition_ties_with_itself(table):
    difference = paired_difference(table, table, resamples=200)
    assert difference.interval.value == 0 == difference.interval.low == difference.interval.high
    assert difference.p_value == 1.0


@settings(deadline=None, max_examples=60)
@given(TABLES, st.randoms(use_true_random=False))
def test_the_other_direction_mirrors(table, random):
    other = np.array([[random.choice([0.0, 0.6, 1.0]) for _ in row] for row in table])
    there, back = paired_difference(table, other, resamples=200), paired_difference(other, table, resamples=200)
    assert there.interval.value == pytest.approx(-back.interval.value, abs=1e-12)
    assert there.p_value == pytest.approx(back.p_value) == paired_p_value(table, other)
    assert there.interval.low <= there.interval.value + 1e-12
    assert there.interval.high >= there.interval.value - 1e-12


@settings(deadline=None, max_examples=40)
@given(TABLES, st.randoms(use_true_random=False))
def test_order_of_questions_and_seeds_does_not_matter_to_the_test(table, random):
    other = np.roll(table, 1)
    columns = list(range(table.shape[1]))
    rows = list(range(table.shape[0]))
    random.shuffle(columns)
    random.shuffle(rows)
    pick = np.ix_(rows, columns)
    assert paired_p_value(table, other) == pytest.approx(paired_p_value(table[pick], other[pick]))


@pytest.mark.parametrize(
    ("seeds", "spread", "paired", "low", "high"),
    [
        (5, 0.05, True, 0.91, 0.99),
        (5, 0.12, True, 0.91, 0.99),
        (3, 0.05, False, 0.91, 0.995),
        (1, 0.0, True, 0.90, 0.98),
    ],
)
def test_coverage_of_the_difference_is_near_nominal(seeds, spread, paired, low, high):
    rng = np.random.default_rng(11)
    hits, rejected, runs = 0, 0, 300
    for _ in range(runs):
        a, b = _world(rng, seeds, 150, gain=0.05, seed_spread=spread)
        difference = paired_difference(a, b, is_seed_paired=paired, resamples=600)
        hits += difference.interval.low <= 0.05 <= difference.interval.high
        nothing = _world(rng, seeds, 150, seed_spread=spread)
        rejected += paired_p_value(*nothing, is_seed_paired=paired) < 0.05
    assert low <= hits / runs <= high
    assert rejected / runs <= 0.09


def test_ignoring_the_seeds_would_claim_too_much():
    """The reason for the hierarchy: one seed's interval over questions misses what another seed would give."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        a, b = _world(rng, 1, 150, gain=0.0, seed_spread=0.15)
        interval = paired_difference(a, b, resamples=300).interval
        hits += interval.low <= 0 <= interval.high
    assert hits / 200 < 0.7


def test_coverage_of_one_condition():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        questions = rng.normal(0.5, 0.15, 120)
        table = (rng.random((5, 120)) < np.clip(questions + rng.normal(0, 0.06, (5, 1)), 0, 1)).astype(float)
        interval = mean_interval(table, resamples=600)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.91 <= hits / 300 <= 0.99


def test_no_interval_leaves_what_a_score_can_be():
    few = mean_interval([[1.0] + [0.0] * 23])
    most = mean_interval([[0.0] + [1.0] * 23])
    assert few.low == 0.0 < few.value < few.high < 1.0 and most.high == 1.0 > most.low
    assert mean_interval([[100.0] + [0.0] * 23]).low < 0.0  # another unit is not cut


def test_a_real_difference_is_found():
    a, b = _world(np.random.default_rng(0), 5, 400, gain=0.2, seed_spread=0.02)
    difference = paired_difference(a, b)
    assert difference.interval.low > 0.1 and difference.p_value < 0.001 and difference.num_seeds == 5


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="same questions"):
        paired_difference(np.zeros((1, 3)), np.zeros((1, 4)))
    with pytest.raises(DataError, match="same seeds"):
        paired_difference(np.zeros((1, 3)), np.zeros((2, 3)))
    with pytest.raises(DataError, match="table of seeds"):
        mean_interval(np.zeros((0, 3)))
    with pytest.raises(DataError, match="table of seeds"):
        mean_interval([[np.nan, 1.0]])


def test_mcnemar_is_exact():
    assert mcnemar([1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1]) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1.0
    assert 0 < mcnemar([1] * 3000 + [0] * 3000, [0] * 3000 + [1] * 3000) <= 1.0
    assert mcnemar([1] * 3000, [0] * 3000) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_depends_on_disagreements_alone(pairs):
    a, b = zip(*pairs, strict=True)
    both = [(True, True), (False, False)]
    more_a, more_b = zip(*pairs, *both, strict=True)
    assert mcnemar(a, b) == mcnemar(b, a) == mcnemar(more_a, more_b)


def test_seed_tests():
    assert seed_permutation([1, 2, 3, 4, 5], [2, 3, 4, 5, 6]) == pytest.approx(2 / 32)
    assert seed_permutation([1, 2], [2, 1]) == 1.0
    rng = np.random.default_rng(0)
    many = rng.normal(0, 1, 20)
    assert seed_permutation(many, many + 1.5) < 0.001
    assert seed_t_test([1.0], [2.0]) == 1.0
    assert seed_t_test([1, 2, 3, 4, 5], [2.1, 3.0, 3.9, 5.2, 6.0]) < 0.001


@given(st.dictionaries(st.text("abcdef", min_size=1), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_no_smaller(p_values):
    adjusted = holm(p_values)
    assert all(p_values[name] <= adjusted[name] <= 1 for name in p_values)
    assert min(adjusted.values()) == pytest.approx(min(1, len(p_values) * min(p_values.values())))
    ordered = sorted(p_values, key=lambda name: p_values[name])
    assert all(adjusted[x] <= adjusted[y] + 1e-15 for x, y in itertools.pairwise(ordered))


def test_holm_keeps_the_family_error():
    rng = np.random.default_rng(1)
    false_claims = sum(min(holm({str(i): p for i, p in enumerate(rng.random(6))}).values()) < 0.05 for _ in range(2000))
    assert 0.035 <= false_claims / 2000 <= 0.065


def test_relative_gain_means_nothing_at_chance():
    a, b = _world(np.random.default_rng(0), 5, 400, gain=0.2, seed_spread=0.02)
    gain = relative_gain(a, b)
    assert gain is not None and gain.low < gain.value < gain.high
    assert gain.value == pytest.approx(100 * (b.mean() / a.mean() - 1))
    assert relative_gain(a, b, chance=0.45) is None
    assert relative_gain(np.zeros((2, 10)), np.ones((2, 10))) is None


@pytest.mark.parametrize(
    ("difference", "p", "a_low", "b_low", "word"),
    [
        (0.1, 0.01, False, False, "better"),
        (-0.1, 0.01, False, False, "worse"),
        (0.1, 0.2, False, False, "tie"),
        (0.1, 0.001, True, True, "at chance"),
        (0.1, 0.001, True, False, "better"),
        (-0.1, 0.001, False, True, "worse"),
        (0.1, 0.001, False, True, "at chance"),
        (0.0, 0.0, False, False, "tie"),
    ],
)
def test_verdicts(difference, p, a_low, b_low, word):
    assert verdict(difference, p, a_at_chance=a_low, b_at_chance=b_low) == word


def test_ranks_share_a_place_when_nothing_tells_them_apart():
    means = {"a": 3.0, "b": 2.9, "c": 1.0, "d": 0.9}
    better = {(x, y): True for x in "ab" for y in "cd"}
    assert ranks(list(means), means, better) == {"a": 1, "b": 1, "c": 3, "d": 3}
