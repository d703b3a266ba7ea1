"""Micro-batches in a fixed order, their pictures opened ahead by threads and kept while memory allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from bettersynth.core.errors import DataError
from bettersynth.core.sample import ImageRef
from bettersynth.models.family import Batch, Example, Pixels, Processor
from bettersynth.train.examples import ExampleStore, RejectedRow


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


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass: ``batch`` is None when every sample of it is bad.

    Attributes:
        number: position in the step, over all devices.
        indices: the samples in it, without the bad ones.
        num_tokens: tokens in it, image tokens included, padding not.
        bad: samples whose picture could not be opened.
    """

    step: int
    number: int
    batch: Batch | None
    indices: tuple[int, ...]
    num_tokens: int
    bad: tuple[tuple[int, RejectedRow], ...] = ()


PlanItem = tuple[int, int, Sequence[int]]
"""(step, number in the step, sample indices) of one forward pass."""


class Loader:
    """Turns a plan into micro-batches. The result does not depend on the number of workers."""

    def __init__(
        self, store: ExampleStore, processor: Processor, *, cache_bytes: int, workers: int, ahead: int
    ) -> None:
        self._store = store
        self._processor = processor
        self._cache = PixelCache(processor, cache_bytes)
        self._workers = workers
        self._ahead = max(1, ahead)

    def build(self, step: int, number: int, indices: Sequence[int]) -> MicroBatch:
        """One micro-batch; a sample with a bad picture is left out and named, never replaced."""
        examples: list[Example] = []
        pixels: list[list[Pixels]] = []
        good: list[int] = []
        bad: list[tuple[int, RejectedRow]] = []
        for index in indices:
            example = self._store[index]
            try:
                pixels.append(self._cache.get(example))
            except DataError as error:
                detail = error.message if error.where is None else f"{error.message}: {error.where}"
                row = RejectedRow(self._store.rows[index], example.key, "load", "bad_image", detail, step)
                bad.append((index, row))
                continue
            examples.append(example)
            good.append(index)
        batch = self._processor.collate(examples, pixels) if examples else None
        tokens = sum(example.num_tokens for example in examples)
        return MicroBatch(step, number, batch, tuple(good), tokens, tuple(bad))

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
