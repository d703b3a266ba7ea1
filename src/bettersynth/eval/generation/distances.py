"""Distances between two sets of pictures by their features: FID, KID, CMMD.

Shape letters: N, M pictures of the two sets, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed

Floats = NDArray[np.float64]

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
"""Bandwidth and factor of the published CMMD."""
_CHUNK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (D,) and covariance (D, D) of features, and of how many pictures they are."""

    mean: Floats
    covariance: Floats
    count: int

    @classmethod
    def of(cls, features: ArrayLike) -> Moments:
        """From (N, D) features, N at least 2; the covariance is the unbiased one."""
        x = _features(features, least=2)
        return cls(x.mean(0), np.atleast_2d(np.cov(x, rowvar=False)), len(x))


def _features(features: ArrayLike, *, least: int) -> Floats:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < least:
        raise DataError(t("too few pictures"), got="x".join(map(str, x.shape)), expected=t("at least {n}", n=least))
    if not np.isfinite(x).all():
        raise DataError(t("features are not numbers"), got="nan, inf")
    return x


def fid(one: Moments, other: Moments) -> float:
    """Frechet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no
    matrix root of an unsymmetric product and no added epsilon are needed. Source: Heusel et al. 2017, arXiv:1706.08500.

    Raises:
        DataError: features of different sizes.
    """
    if one.mean.shape != other.mean.shape:
        raise DataError(t("features of different sizes"), got=f"{len(one.mean)} / {len(other.mean)}")
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.clip(np.linalg.eigvalsh(root @ other.covariance @ root), 0, None)
    shift = float(((one.mean - other.mean) ** 2).sum())
    return max(0.0, shift + float(np.trace(one.covariance) + np.trace(other.covariance) - 2 * np.sqrt(cross).sum()))


def polynomial_mmd(x: Floats, y: Floats) -> float:
    """Unbiased squared MMD under k(a, b) = (a.b / D + 1)^3. Source: Binkowski et al. 2018, arXiv:1801.01401."""
    size, dim = len(x), x.shape[1]
    xx, yy, xy = ((a @ b.T / dim + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    own = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (size * (size - 1))
    return float(own - 2 * xy.sum() / size**2)


@dataclass(frozen=True, slots=True)
class Kid:
    """Mean and standard deviation over subsets; figures in papers are often these times 1000."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def kid(one: ArrayLike, other: ArrayLike, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Kid:
    """Kernel distance: :func:`polynomial_mmd` averaged over random subsets; subsets are no larger than the sets."""
    x, y = _features(one, least=2), _features(other, least=2)
    size = min(subset_size, len(x), len(y))
    rng = np.random.default_rng(derive_seed(seed, "kid"))
    values = []
    for _ in range(subsets):
        chosen = [side[rng.choice(len(side), size, replace=False)] for side in (x, y)]
        values.append(polynomial_mmd(chosen[0], chosen[1]))
    return Kid(float(np.mean(values)), float(np.std(values)), subsets, size)


def cmmd(one: ArrayLike, other: ArrayLike, *, sigma: float = CMMD_SIGMA, scale: float = CMMD_SCALE) -> float:
    """Squared MMD of embeddings under a Gaussian kernel, times 1000, all pairs counted (diagonal too).

    Meant for unit vectors of CLIP ViT-L/14 at 336 px. Source: Jayasumana et al. 2024, arXiv:2401.09603.
    """
    x, y = _features(one, least=1), _features(other, least=1)
    gamma = 1 / (2 * sigma**2)
    return scale * (_mean_kernel(x, x, gamma) + _mean_kernel(y, y, gamma) - 2 * _mean_kernel(x, y, gamma))


def _mean_kernel(x: Floats, y: Floats, gamma: float) -> float:
    """Mean of exp(-gamma |a - b|^2) over all pairs, some rows at a time."""
    norms, total = (y**2).sum(1), 0.0
    for start in range(0, len(x), _CHUNK_ROWS):
        rows = x[start : start + _CHUNK_ROWS]
        squared = (rows**2).sum(1)[:, None] + norms - 2 * rows @ y.T
        total += float(np.exp(-gamma * np.clip(squared, 0, None)).sum())
    return total / (len(x) * len(y))
