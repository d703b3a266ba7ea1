"""The order of samples: complete, seeded, grouped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.train.sampler import OrderSpec, micro_batches, sample_order

SPEC = OrderSpec(total=50, global_batch=8, micro_batch=4, seed=1)


@given(
    st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 150),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_every_sample_comes_equally_often(
    samples: list[tuple[int, bool]], total: int, global_batch: int, micro: int, is_grouped: bool, is_dealt: bool
) -> None:
    spec = OrderSpec(total, global_batch, micro, 5, is_grouped, is_dealt)
    order = sample_order(spec, [length for length, _ in samples], [image for _, image in samples])
    assert len(order) == total
    counts = Counter(order)
    times = [counts.get(index, 0) for index in range(len(samples))]
    assert max(times) - min(times) <= 1
    shown = [index for step in range(spec.steps) for batch in micro_batches(order, spec, step) for index in batch]
    assert shown == order


def test_order_depends_on_the_seed_only() -> None:
    lengths, images = list(range(50)), [1] * 50
    assert sample_order(SPEC, lengths, images) == sample_order(SPEC, lengths, images)
    assert sample_order(SPEC, lengths, images) != sample_order(replace(SPEC, seed=2), lengths, images)


def test_passes_differ() -> None:
    order = sample_order(replace(SPEC, total=100), list(range(50)), [1] * 50)
    assert order[:50] != order[50:]


def grouped(**changes: bool) -> tuple[OrderSpec, list[int], list[int], list[int]]:
    lengths = [10 + (7 * n) % 50 for n in range(100)]
    images = [int(n % 3 != 0) for n in range(100)]
    spec = replace(SPEC, total=100, is_grouped=True, **changes)
    return spec, lengths, images, sample_order(spec, lengths, images)


def test_grouped_steps_are_of_one_kind_except_the_rest() -> None:
    spec, _, images, order = grouped()
    kinds = [{images[i] for batch in micro_batches(order, spec, step) for i in batch} for step in range(spec.steps)]
    whole = 34 // 8 + 66 // 8
    assert all(len(kind) == 1 for kind in kinds[:whole])
    assert len({tuple(kind) for kind in kinds[:whole]}) == 2


def test_grouping_pads_least_when_neighbours_share_a_batch() -> None:
    def padding(spec: OrderSpec, lengths: list[int], order: list[int]) -> int:
        total = 0
        for step in range(spec.steps):
            for batch in micro_batches(order, spec, step):
                total += max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch)
        return total

    spec, lengths, images, order = grouped()
    plain = sample_order(replace(spec, is_grouped=False), lengths, images)
    dealt = sample_order(replace(spec, is_dealt=True), lengths, images)
    assert padding(spec, lengths, order) < padding(spec, lengths, dealt) * 0.75
    assert padding(spec, lengths, order) < padding(spec, lengths, plain) * 0.75


def test_dealing_makes_micro_batches_equally_long() -> None:
    spec, lengths, _, order = grouped(is_dealt=True)
    for step in range(8):
        sums = [sum(lengths[i] for i in batch) for batch in micro_batches(order, spec, step)]
        assert max(sums) - min(sums) <= 50


def test_zero_lengths_are_welcome() -> None:
    assert sorted(sample_order(replace(SPEC, total=3, is_grouped=True), [0, 0, 0], [0, 1, 0])) == [0, 1, 2]


@pytest.mark.parametrize(("total", "steps"), [(1, 1), (8, 1), (9, 2), (200_000, 25_000)])
def test_steps_count_the_ragged_last_one(total: int, steps: int) -> None:
    assert replace(SPEC, total=total).steps == steps
