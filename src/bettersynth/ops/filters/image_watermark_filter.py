"""Keep rows whose pictures bear no watermark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter, second_class


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageWatermarkFilter(PixelFilter):
    """How likely each distinct picture bears a watermark, as in Data-Juicer; rows without pictures stay.

    Args:
        hf_watermark_model: folder of a picture classifier whose second class is the marked one.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        prob_threshold: largest probability; None to score without dropping.
        min_prob: smallest probability (ours); None for no limit.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.image_watermark_prob",)
    models: ClassVar[tuple[str, ...]] = ("hf_watermark_model",)
    stat: ClassVar[str] = "image_watermark_prob"
    bounds: ClassVar[tuple[str, str]] = ("min_prob", "prob_threshold")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_prob", "prob_threshold")

    hf_watermark_model: str = "amrul-hzz/watermark_detector"
    trust_remote_code: bool = False
    prob_threshold: float | None = 0.8
    min_prob: float | None = None

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Probability of the second class, to five decimals."""
        return second_class(ctx.classifier(self.hf_watermark_model).logits([ctx.image(path) for path in paths]))
