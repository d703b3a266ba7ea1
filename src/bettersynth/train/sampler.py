"""The order in which samples are shown: a pure function of the data's lengths and one seed.

Nothing is random at run time and no position but the step number must be remembered, so a run continues exactly, on any
number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from bettersynth.core.seed import generator


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """How samples are ordered.

    Attributes:
        total: samples to show, repetitions counted.
        global_batch: samples per step.
        micro_batch: samples per forward pass.
        seed: the run's seed.
        is_grouped: steps of one modality and similar length.
        is_dealt: inside a step, deal samples so that all micro-batches are about equally long (the original); otherwise
            neighbours in length share a micro-batch, which pads least.
    """

    total: int
    global_batch: int
    micro_batch: int
    seed: int
    is_grouped: bool = False
    is_dealt: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps; the last one may hold fewer samples."""
        return -(-self.total // self.global_batch)


def sample_order(spec: OrderSpec, lengths: Sequence[int], has_image: Sequence[int]) -> list[int]:
    """Indices in training order, ``spec.total`` long; step ``s`` takes ``[s * global_batch, (s + 1) * global_batch)``.

    Args:
        lengths: tokens of each example, image tokens included.
        has_image: per example, whether it holds a picture.
    """
    if not lengths:
        return []
    if spec.is_grouped:
        return _grouped_order(spec, lengths, has_image)
    order: list[int] = []
    for number in range(-(-spec.total // len(lengths))):
        order.extend(_shuffled(range(len(lengths)), generator(spec.seed, "sample_order", number)))
    return order[: spec.total]


def _shuffled(items: Sequence[int] | range, rng: Random) -> list[int]:
    shuffled = list(items)
    rng.shuffle(shuffled)
    return shuffled


def _grouped_order(spec: OrderSpec, lengths: Sequence[int], has_image: Sequence[int]) -> list[int]:
    """Whole steps of one modality, sorted by length inside, in shuffled order; the two ragged rests come last.

    Source: the structure of the original's length-grouped sampler. Differences: lengths are tokens including image
    tokens (the original counts whitespace words, and stops at a sample with none), and the seed is the run's own.
    """
    order: list[int] = []
    rests: tuple[list[int], list[int]] = ([], [])
    left = spec.total
    number = 0
    while left > 0:
        rng = generator(spec.seed, "grouped_order", number)
        picked = _shuffled(range(len(lengths)), rng)[:left]
        steps: list[list[int]] = []
        for kind in (0, 1):
            queue = rests[kind] + [index for index in picked if bool(has_image[index]) == bool(kind)]
            whole = len(queue) - len(queue) % spec.global_batch
            steps += [queue[at : at + spec.global_batch] for at in range(0, whole, spec.global_batch)]
            rests[kind][:] = queue[whole:]
        rng.shuffle(steps)
        for step in steps:
            order.extend(_arrange(step, spec, lengths))
        left -= len(picked)
        number += 1
    rest = rests[0] + rests[1]
    for at in range(0, len(rest), spec.global_batch):
        order.extend(_arrange(rest[at : at + spec.global_batch], spec, lengths))
    return order


def _arrange(step: list[int], spec: OrderSpec, lengths: Sequence[int]) -> list[int]:
    by_length = sorted(step, key=lambda index: (-lengths[index], index))
    if not spec.is_dealt or len(step) % spec.micro_batch:
        return by_length
    hands: list[list[int]] = [[] for _ in range(len(step) // spec.micro_batch)]
    weights = [0] * len(hands)
    for index in by_length:
        open_hands = [n for n, hand in enumerate(hands) if len(hand) < spec.micro_batch]
        lightest = min(open_hands, key=lambda n: weights[n])
        hands[lightest].append(index)
        weights[lightest] += lengths[index]
    return [index for hand in hands for index in hand]


def micro_batches(order: Sequence[int], spec: OrderSpec, step: int) -> list[list[int]]:
    """The forward passes of one step over all devices; the last one may be smaller, none is empty."""
    batch = order[step * spec.global_batch : min((step + 1) * spec.global_batch, spec.total)]
    return [list(batch[at : at + spec.micro_batch]) for at in range(0, len(batch), spec.micro_batch)]
