"""Micro-batches: order, cache, bad pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bettersynth.config.train import StageConfig
from bettersynth.train.data import prepare
from bettersynth.train.loader import Loader, PixelCache

PLAN = [(0, 0, [0, 1, 2]), (0, 1, [3, 4]), (1, 0, [5, 1]), (2, 0, [4, 1, 0])]


@pytest.fixture
def store_and_processor(fake: ModuleType, configure: Callable[..., StageConfig], data_folder: Path) -> Any:
    processor = fake.FakeProcessor(data_folder, 2048)
    return prepare(configure(), processor).examples, processor


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_and_content_do_not_depend_on_workers(store_and_processor: Any, workers: int) -> None:
    store, processor = store_and_processor
    plain = list(Loader(store, processor, cache_bytes=0, workers=0, ahead=1)(iter(PLAN)))
    found = list(Loader(store, processor, cache_bytes=10**6, workers=workers, ahead=2)(iter(PLAN)))
    assert [(m.step, m.number, list(m.indices)) for m in found] == PLAN
    for one, two in zip(plain, found, strict=True):
        assert one.batch is not None
        assert two.batch is not None
        assert all(torch.equal(one.batch[name], two.batch[name]) for name in one.batch)


def test_leaving_early_stops_the_workers(store_and_processor: Any) -> None:
    store, processor = store_and_processor
    batches = Loader(store, processor, cache_bytes=0, workers=2, ahead=2)(iter(PLAN * 50))
    next(batches)
    batches.close()


def test_cache_opens_each_picture_once_and_respects_its_limit(store_and_processor: Any) -> None:
    store, processor = store_and_processor
    opened: list[str] = []

    class Counting:
        def load_pixels(self, example: Any) -> Any:
            opened.append(example.key)
            return processor.load_pixels(example)

    cache = PixelCache(Counting(), limit_bytes=2 * 6 * 6 * 3)  # type: ignore[arg-type]
    for _ in range(2):
        for index in (1, 2, 4):
            cache.get(store[index])
    assert opened == ["s001", "s002", "s004", "s004"]
    assert cache.held_bytes == 216
