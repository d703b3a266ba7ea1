"""Choose the same number of rows from every cluster of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core.seed import derive_seed
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, Batch, Selector, Stats, Verdict

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterUniformSelector(Selector):
    """k-means on CLIP picture embeddings, then as even a draw over the clusters as their sizes allow (ours).

    Evens out what is common and what is rare. Rows without pictures form a cluster of their own.

    Args:
        hf_clip: folder of a CLIP model.
        num_clusters: clusters; at most one per row is used.
        select_ratio: share of the rows.
        select_num: number of rows; with both given the smaller result counts.
        iterations: rounds of k-means.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    writes: ClassVar[tuple[str, ...]] = ("stats.cluster",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_clip",)
    keep_params: ClassVar[tuple[str, ...]] = ("num_clusters", "select_ratio", "select_num", "iterations")

    hf_clip: str = "openai/clip-vit-base-patch32"
    num_clusters: int = 64
    select_ratio: float | None = None
    select_num: int | None = None
    iterations: int = 25

    def check(self) -> None:
        """Something must be asked for."""
        if not self.select_ratio and not self.select_num:
            raise ValueError("give select_ratio (0 to 1) or select_num")
        if self.num_clusters < 1:
            raise ValueError("num_clusters must be at least 1")

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The embedding of each row's first picture; null without one."""
        rows = ctx.image_paths(batch)
        owners = [row for row, paths in enumerate(rows) if paths]
        found: list[list[float] | None] = [None] * len(rows)
        if owners:
            vectors = ctx.scorer(self.hf_clip).embed_images([ctx.image(rows[row][0]) for row in owners])
            for row, vector in zip(owners, np.round(vectors, 5).tolist(), strict=True):
                found[row] = vector
        return {"embedding": pa.array(found, pa.list_(pa.float32()))}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Cluster, share out the places, draw inside each cluster by the run's seed."""
        column = partials.column("embedding").combine_chunks()
        total = len(column)
        labels = np.full(total, -1, np.int64)
        known = np.flatnonzero(np.asarray(column.is_valid()))
        generator = np.random.default_rng(derive_seed(ctx.seed, self.name))
        if len(known):
            points = np.array(column.take(pa.array(known)).to_pylist(), np.float64)
            labels[known] = kmeans(points, min(self.num_clusters, len(known)), self.iterations, generator)
        wanted = [int(self.select_ratio * total)] if self.select_ratio else []
        wanted += [self.select_num] if self.select_num else []
        copies = np.zeros(total, np.int64)
        names, sizes = np.unique(labels, return_counts=True)
        for name, quota in zip(names, even_quotas(sizes, min(*wanted, total)), strict=True):
            members = np.flatnonzero(labels == name)
            copies[generator.permutation(members)[:quota]] = 1
        reasons = ["" if n else "its cluster has enough rows" for n in copies]
        facts = {"clusters": len(names), "smallest": int(sizes.min()), "largest": int(sizes.max())}
        return Verdict(copies, reasons, {"cluster": pa.array(labels)}, facts)


def even_quotas(sizes: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """Places per group, as even as the sizes allow, adding up to ``total`` (or to everything there is).

    >>> even_quotas(np.array([1, 10, 10]), 9).tolist()
    [1, 4, 4]
    """
    quotas = np.zeros(len(sizes), np.int64)
    left = min(total, int(sizes.sum()))
    while left:
        open_groups = np.flatnonzero(quotas < sizes)
        share = max(1, left // len(open_groups))
        for group in open_groups:
            give = int(min(share, sizes[group] - quotas[group], left))
            quotas[group] += give
            left -= give
    return quotas


def kmeans(points_ND: Floats, count: int, iterations: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """[N] cluster of each point: k-means++ start, Lloyd rounds, ties to the lower number.

    Source: Arthur and Vassilvitskii, k-means++, SODA 2007. Distances are rounded so that last-bit noise of different
    machines' linear algebra does not move points.
    """
    centres_KD = points_ND[[int(generator.integers(len(points_ND)))]]
    nearest_N = _distances(points_ND, centres_KD)[:, 0]
    while len(centres_KD) < count and nearest_N.sum() > 0:
        chosen = int(generator.choice(len(points_ND), p=nearest_N / nearest_N.sum()))
        centres_KD = np.vstack([centres_KD, points_ND[chosen]])
        nearest_N = np.minimum(nearest_N, _distances(points_ND, centres_KD[-1:])[:, 0])
    labels_N = _distances(points_ND, centres_KD).argmin(1)
    for _ in range(iterations):
        for number in range(len(centres_KD)):
            members = points_ND[labels_N == number]
            if len(members):
                centres_KD[number] = members.mean(0)
        moved_N = _distances(points_ND, centres_KD).argmin(1)
        if (moved_N == labels_N).all():
            break
        labels_N = moved_N
    found: npt.NDArray[np.int64] = labels_N.astype(np.int64)
    return found


def _distances(points_ND: Floats, centres_KD: Floats) -> Floats:
    squared = (points_ND**2).sum(1)[:, None] - 2 * points_ND @ centres_KD.T + (centres_KD**2).sum(1)
    rounded: Floats = np.round(np.maximum(squared, 0), 9)
    return rounded
