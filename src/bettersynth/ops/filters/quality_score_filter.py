"""Combine several signals into one quality score and keep the better rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import STATS, Batch, GlobalOperator, Stats, Verdict, percentile_ranks, stat_values


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityScoreFilter(GlobalOperator):
    """Weighted mean of each row's percentile ranks in several stats, itself turned into a percentile rank (ours).

    Ranks make signals of different scales comparable and let the threshold follow the data: ``min_score: 0.4`` drops
    the worst 40 %. A row without a value for a signal gets the middle rank there.

    Args:
        signals: stat name to weight; negative where small values are good, e.g. ``{image_caption_nll: -1}``.
        min_score: rows below this share go, 0 to 1; 0 keeps all and only adds the score.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ("stats.quality_score",)
    keep_params: ClassVar[tuple[str, ...]] = ("min_score", "signals")

    signals: dict[str, float] = field(default_factory=dict)
    min_score: float = 0.0

    def check(self) -> None:
        """At least one signal with a weight, and a share as threshold."""
        if not any(self.signals.values()):
            raise ValueError("signals needs at least one stat with a weight, e.g. {image_text_similarity: 1}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must be a share between 0 and 1, not {self.min_score}")

    def needs(self) -> tuple[str, ...]:
        """The signals' columns."""
        return tuple(STATS + name for name in self.signals)

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The signals' values."""
        return {name: pa.array(stat_values(batch.column(STATS + name))) for name in self.signals}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Rank, combine, rank again."""
        total = np.zeros(partials.num_rows)
        for name, weight in self.signals.items():
            values = partials.column(name).to_numpy()
            total += abs(weight) * percentile_ranks(values if weight > 0 else -values)
        score = np.round(percentile_ranks(total), 6)
        kept = score >= self.min_score
        reasons = ["" if stays else "quality_score below min_score" for stays in kept]
        return Verdict(kept.astype(np.int64), reasons, {"quality_score": pa.array(score)})
