"""Mixtures keep their shares and packs keep their samples."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate

import pytest

from bettersynth.train.mixture import mixture_order, pack_batches
from bettersynth.train.sampler import OrderSpec


def _spec(total: int, seed: int = 1) -> OrderSpec:
    return OrderSpec(total=total, global_batch=4, micro_batch=2, seed=seed)


def test_every_prefix_holds_the_shares_and_no_sample_comes_twice_before_all_came_once() -> None:
    groups = [list(range(10)), list(range(10, 40)), list(range(40, 45))]
    weights = [3.0, 1.0, 1.0]
    order = mixture_order(_spec(200), groups, weights)
    owner = {index: number for number, group in enumerate(groups) for index in group}
    for number, weight in enumerate(weights):
        counts = list(accumulate(int(owner[index] == number) for index in order))
        assert all(abs(count - weight / 5 * place) <= 1.5 for place, count in enumerate(counts, 1))
    for number, group in enumerate(groups):
        shown = [index for index in order if owner[index] == number]
        for at in range(0, len(shown) - len(group) + 1, len(group)):
            assert sorted(shown[at : at + len(group)]) == group


def test_the_order_depends_on_the_seed_alone() -> None:
    groups, weights = [[0, 1, 2, 3], [4, 5, 6]], [1.0, 2.0]
    first = mixture_order(_spec(30), groups, weights)
    assert first == mixture_order(_spec(30), groups, weights) != mixture_order(_spec(30, 2), groups, weights)
    assert mixture_order(_spec(9), [[], [1]], [5.0, 1.0]) == [1] * 9
    assert mixture_order(_spec(9), [[]], [1.0]) == []


@pytest.mark.parametrize("seed", range(5))
def test_packs_lose_nothing_and_never_grow_over_the_limit(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 60) for _ in range(50)]
    batches = [rng.sample(range(50), 7) for _ in range(3)]
    packs = pack_batches(batches, lengths, 60)
    assert Counter(i for pack in packs for i in pack) == Counter(i for batch in batches for i in batch)
    assert all(sum(lengths[i] for i in pack) <= 60 for pack in packs)
    assert len(packs) <= 21
