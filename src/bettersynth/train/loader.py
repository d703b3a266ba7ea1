"""Micro-batches in a fixed order, their pictures opened ahead by threads and kept while memory allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bettersynth.core.errors import DataError
from bettersynth.core.sample import ImageRef
from bettersynth.models.family import Batch, Example, Pixels, Processor
from bettersynth.train.examples import ExampleStore, RejectedRow
from bettersynth.train.features import FeatureSource, Pictures


class PixelCache:
    """Decoded pictures by reference, kept until a byte limit is reached.

    Nothing is evicted: training goes over the data in cycles, where throwing out the least recently used picture would
    throw out exactly the one that is needed next.
    """

    def __init__(self, processor: Processor, limit_bytes: int) -> None:
        self._processor = processor
        self._limit_bytes = limit_bytes
        self._held: dict[tuple[ImageRef, ...], list[Pixels]] = {}
        self._lock = threading.Lock()
        self.held_bytes = 0

    def get(self, example: Example) -> list[Pixels]:
        """The pictures of an example. Raises DataError for a missing or damaged one."""
        if not example.images:
            return self._processor.load_pixels(example)
        found = self._held.get(example.images)
        if found is not None:
            return found
        pixels = self._processor.load_pixels(example)
        size = sum(picture.nbytes for picture in pixels)
        with self._lock:
            if self.held_bytes + size <= self._limit_bytes and example.images not in self._held:
                self._held[example.images] = pixels
                self.held_bytes += size
        return pixels


NO_PIXELS: Pixels = np.zeros((1, 1, 3), dtype=np.uint8)
"""Stands in a batch for a picture whose features come from the store."""


def _join(parts: Sequence[Pictures]) -> Pictures | None:
    keys = tuple(key for part in parts for key in part.keys)
    if not keys:
        return None
    known = {key: features for part in parts for key, features in part.known.items()}
    return Pictures(keys, known, {key: array for part in parts for key, array in part.pixels.items()})


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass: ``batch`` is None when every sample of it is bad.

    Attributes:
        number: position in the step, over all devices.
        indices: the samples in it, without the bad ones.
        num_tokens: tokens in it, image tokens included, padding not.
        bad: samples whose picture could not be opened.
        pictures: with a feature cache, the pictures that take the place of those in the batch.
    """

    step: int
    number: int
    batch: Batch | None
    indices: tuple[int, ...]
    num_tokens: int
    bad: tuple[tuple[int, RejectedRow], ...] = ()
    pictures: Pictures | None = None


PlanItem = tuple[int, int, Sequence[int]]
"""(step, number in the step, sample indices) of one forward pass."""


class Loader:
    """Turns a plan into micro-batches. The result does not depend on the number of workers."""

    def __init__(
        self,
        store: ExampleStore,
        processor: Processor,
        *,
        cache_bytes: int,
        workers: int,
        ahead: int,
        features: FeatureSource | None = None,
    ) -> None:
        self._store = store
        self._processor = processor
        self._cache = PixelCache(processor, cache_bytes)
        self._workers = workers
        self._ahead = max(1, ahead)
        self._features = features

    def build(self, step: int, number: int, indices: Sequence[int]) -> MicroBatch:
        """One micro-batch; a sample with a bad picture is left out and named, never replaced."""
        examples: list[Example] = []
        pixels: list[list[Pixels]] = []
        pictures: list[Pictures] = []
        # A picture alone in its batch takes other kernels; it is not worth an exception elsewhere.
        is_shared = sum(len(self._store[index].images) for index in indices) > 1
        source = self._features if is_shared else None
        good: list[int] = []
        bad: list[tuple[int, RejectedRow]] = []
        for index in indices:
            example = self._store[index]
            try:
                if source is None:
                    pixels.append(self._cache.get(example))
                else:
                    pictures.append(source.look_up(example, self._cache.get))
                    pixels.append([NO_PIXELS] * len(example.images))
            except DataError as error:
                detail = error.message if error.where is None else f"{error.message}: {error.where}"
                row = RejectedRow(self._store.rows[index], example.key, "load", "bad_image", detail, step)
                bad.append((index, row))
                continue
            examples.append(example)
            good.append(index)
        batch = self._collate(step, good, examples, pixels) if examples else None
        tokens = sum(example.num_tokens for example in examples)
        joined = _join(pictures)
        if joined is not None and len(joined.keys) == 1 and batch is not None:
            # All but one of the pictures were bad: as above.
            joined, batch = None, self._processor.collate(examples, [self._cache.get(one) for one in examples])
        return MicroBatch(step, number, batch, tuple(good), tokens, tuple(bad), joined)

    def _collate(
        self, step: int, indices: Sequence[int], examples: Sequence[Example], pixels: Sequence[Sequence[Pixels]]
    ) -> Batch:
        """A family whose batches hold random numbers draws them by step and sample, not by what shares a batch."""
        collate_step = getattr(self._processor, "collate_step", None)
        if collate_step is None:
            return self._processor.collate(examples, pixels)
        batch: Batch = collate_step(step, indices, examples, pixels)
        return batch

    def __call__(self, plan: Iterator[PlanItem]) -> Generator[MicroBatch, None, None]:
        """Micro-batches of a plan, in its order."""
        if self._workers == 0:
            for item in plan:
                yield self.build(*item)
            return
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="pixels")
        pending: deque[Future[MicroBatch]] = deque()
        try:
            for item in plan:
                pending.append(pool.submit(self.build, *item))
                if len(pending) >= self._workers * self._ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
