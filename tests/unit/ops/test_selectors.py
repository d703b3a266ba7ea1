"""Selectors and de-duplication of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bettersynth.ops.dedup.document_minhash_deduplicator import DocumentMinhashDeduplicator
from bettersynth.ops.dedup.image_deduplicator import ImageDeduplicator
from bettersynth.ops.selectors.band_selector import BandSelector
from bettersynth.ops.selectors.cluster_uniform_selector import ClusterUniformSelector, even_quotas, kmeans
from bettersynth.ops.selectors.random_selector import RandomSelector
from bettersynth.ops.selectors.repeat_to_budget_selector import RepeatToBudgetSelector


def verdict(operator: Any, rows: Any, ctx: Any) -> Any:
    return operator.reduce(pa.table(operator.partial(rows, ctx)), ctx)


def test_band_cuts_both_ends_and_keeps_rows_without_a_value(ctx: Any, batch: Any) -> None:
    scores = [0.5, 0.9, 0.1, 0.7, None, 0.3, 0.2, 0.8, 0.6, 0.4, 0.0]
    rows = batch(["a"] * 11, score=scores)
    found = verdict(BandSelector(stat="score", drop_top=0.1, drop_bottom=0.2), rows, ctx)
    assert found.copies.tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert found.reasons[1] == "score among the top" and found.reasons[10] == "score among the bottom"
    best = verdict(BandSelector(stat="score", drop_top=0.1, select_num=2), rows, ctx)
    assert np.flatnonzero(best.copies).tolist() == [3, 4, 7]
    with pytest.raises(ValueError, match="less than 1"):
        BandSelector(drop_top=0.5, drop_bottom=0.5).check()


@pytest.mark.parametrize("wanted", [1, 3, 7, 10, 23])
def test_repeat_reaches_the_budget_exactly(wanted: int, ctx: Any, batch: Any) -> None:
    rows = batch(["a"] * 7, q=[0.1, 0.9, 0.2, 0.8, 0.3, 0.7, None])
    found = verdict(RepeatToBudgetSelector(num_samples=wanted), rows, ctx)
    assert found.copies.sum() == wanted and found.copies.max() - found.copies.min() <= 1
    best = verdict(RepeatToBudgetSelector(num_samples=wanted, prefer="q"), rows, ctx)
    if wanted == 3:
        assert np.flatnonzero(best.copies).tolist() == [1, 3, 5]


def test_random_selector_repeats_beyond_the_number_of_rows(ctx: Any, batch: Any) -> None:
    found = verdict(RandomSelector(select_num=10), batch(["a"] * 4), ctx)
    assert found.copies.sum() == 10 and found.copies.min() == 2
    assert verdict(RandomSelector(select_ratio=0.5, select_num=3), batch(["a"] * 4), ctx).copies.sum() == 2
    with pytest.raises(ValueError, match="select_ratio"):
        RandomSelector(select_ratio=0.0).check()


def test_kmeans_finds_separate_groups_whatever_the_seed() -> None:
    points = np.concatenate([np.random.default_rng(n).normal(10 * n, 0.1, (20, 3)) for n in range(4)])
    for seed in range(5):
        labels = kmeans(points, 4, 25, np.random.default_rng(seed)).reshape(4, 20)
        assert all(len(set(group)) == 1 for group in labels.tolist()) and len(set(labels[:, 0].tolist())) == 4
    assert kmeans(np.zeros((5, 2)), 3, 5, np.random.default_rng(0)).tolist() == [0] * 5


@pytest.mark.parametrize(
    ("sizes", "total", "quotas"), [([1, 10, 10], 9, [1, 4, 4]), ([2, 2], 9, [2, 2]), ([5, 5, 5], 4, [2, 1, 1])]
)
def test_quotas(sizes: list[int], total: int, quotas: list[int]) -> None:
    assert even_quotas(np.array(sizes), total).tolist() == quotas


def test_cluster_uniform_draws_evenly_from_pictures(ctx: Any, batch: Any) -> None:
    images = [["0.png"]] * 8 + [["1.png"], ["2.png"], []]
    found = verdict(
        ClusterUniformSelector(hf_clip="fake", num_clusters=3, select_num=5), batch(["a"] * 11, images=images), ctx
    )
    assert found.copies.sum() == 5 and found.copies[8:].tolist() == [1, 1, 1]
    assert len(set(found.columns["cluster"].to_pylist()[:8])) == 1


def test_short_texts_are_one_cluster_unless_kept_apart(ctx: Any, batch: Any) -> None:
    rows = batch(["a b", "c d", "a b"])
    assert verdict(DocumentMinhashDeduplicator(), rows, ctx).copies.tolist() == [1, 0, 0]
    assert verdict(DocumentMinhashDeduplicator(keep_short=True), rows, ctx).copies.tolist() == [1, 1, 0]


def test_equal_pictures(ctx: Any, batch: Any) -> None:
    rows = batch(["a", "a", "b", "", "", "a"], images=[["0.png"], ["1.png"], ["copy.png"], [], [], ["copy.png"]])
    assert verdict(ImageDeduplicator(), rows, ctx).copies.tolist() == [1, 1, 0, 1, 1, 0]
    assert verdict(ImageDeduplicator(consider_text=True), rows, ctx).copies.tolist() == [1, 1, 1, 1, 0, 0]


def test_close_pictures_meet_within_the_distance(ctx: Any, batch: Any, pictures: Any) -> None:
    pixels = np.asarray(Image.open(pictures / "0.png"), np.int16)
    noisy = np.clip(pixels + np.random.default_rng(0).integers(-14, 15, pixels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(pictures / "noisy.png")
    rows = batch(["a", "b", "c"], images=[["0.png"], ["1.png"], ["noisy.png"]])
    table = pa.table(ImageDeduplicator().partial(rows, ctx))
    distance = (int(table["image"][0].as_py(), 16) ^ int(table["image"][2].as_py(), 16)).bit_count()
    assert 0 < distance <= 7
    assert ImageDeduplicator(max_distance=distance).reduce(table, ctx).copies.tolist() == [1, 1, 0]
    assert ImageDeduplicator(max_distance=distance - 1).reduce(table, ctx).copies.tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", ["phash", "dhash", "whash", "ahash"])
def test_scaled_hashes_lie_near_the_exact_ones(method: Any, ctx: Any, batch: Any, pictures: Any) -> None:
    for number in range(4):
        small = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((900, 700), Image.Resampling.BICUBIC).save(pictures / f"{number}.jpg")
    (pictures / "again.jpg").write_bytes((pictures / "0.jpg").read_bytes())
    rows = batch(["a"] * 5, images=[["0.jpg"], ["1.jpg"], ["2.jpg"], ["3.jpg"], ["again.jpg"]])
    exact, scaled = (
        [
            int(value, 16)
            for value in ImageDeduplicator(method=method, scaled=flag).partial(rows, ctx)["image"].to_pylist()
        ]
        for flag in (False, True)
    )
    assert scaled[0] == scaled[4] and len(set(scaled)) == 4
    assert max((a ^ b).bit_count() for a, b in zip(exact, scaled, strict=True)) <= 6
