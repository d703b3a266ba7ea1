"""Weighted mixtures and packs: in which order samples of several data sets are shown, and which share a forward pass.

Both are pure functions of lengths, weights and a seed, so nothing but the step number must be remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from bettersynth.core.seed import generator
from bettersynth.train.sampler import OrderSpec


def mixture_order(spec: OrderSpec, groups: Sequence[Sequence[int]], weights: Sequence[float]) -> list[int]:
    """Indices in training order, ``spec.total`` long.

    Every prefix of the order holds each group in its share, as nearly as whole samples allow; a group shows all of its
    samples, shuffled, before it shows one again.

    Args:
        groups: indices of each data set.
        weights: of each data set; they need not sum to 1. Empty groups are left out.
    """
    live = [number for number, group in enumerate(groups) if group and weights[number] > 0]
    total = sum(weights[number] for number in live)
    taken = dict.fromkeys(live, 0)
    queues: dict[int, list[int]] = {number: [] for number in live}
    rounds = dict.fromkeys(live, 0)
    order: list[int] = []
    for place in range(1, spec.total + 1) if live else ():
        number = max(live, key=lambda n: (weights[n] / total * place - taken[n], -n))
        if not queues[number]:
            queues[number] = list(groups[number])
            generator(spec.seed, "mixture_order", number, rounds[number]).shuffle(queues[number])
            rounds[number] += 1
        order.append(queues[number].pop())
        taken[number] += 1
    # Inside a step the groups would stand in a fixed rhythm; samples of a step are summed, so their order is free.
    return order


def pack_batches(batches: Sequence[Sequence[int]], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """The samples of a step in packs of at most ``limit`` tokens, first fit; none is lost, none is required.

    >>> pack_batches([[0, 1], [2, 3]], [5, 7, 4, 20], 10)
    [[0, 2], [1], [3]]
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for index in (index for batch in batches for index in batch):
        place = next((n for n, free in enumerate(room) if lengths[index] <= free), None)
        if place is None:
            packs.append([index])
            room.append(limit - lengths[index])
        else:
            packs[place].append(index)
            room[place] -= lengths[index]
    return packs
