"""Keep rows whose pictures an aesthetics predictor rates well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAestheticsFilter(PixelFilter):
    """The rating of each distinct picture, as in Data-Juicer; rows without pictures stay.

    Args:
        hf_scorer_model: folder of an aesthetics predictor (V1 or V2 in Hugging Face layout), or of any classifier,
            whose first logit counts then.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        min_score: smallest rating; None to score without dropping.
        max_score: largest rating.
        divide_by: the rating's scale. None: 10 when the folder's name holds ``aesthetics-predictor``, else 1.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.image_aesthetics_scores",)
    models: ClassVar[tuple[str, ...]] = ("hf_scorer_model",)
    stat: ClassVar[str] = "image_aesthetics_scores"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_score", "max_score")

    hf_scorer_model: str = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"
    trust_remote_code: bool = False
    min_score: float | None = 0.5
    max_score: float | None = 1.0
    divide_by: float | None = None

    def check(self) -> None:
        """Bounds in order, and a scale that can divide."""
        PictureFilter.check(self)
        if self.divide_by is not None and self.divide_by <= 0:
            raise ValueError("divide_by must be above 0")

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """First logit over the scale, to five decimals."""
        scale = self.divide_by or (10.0 if "aesthetics-predictor" in self.hf_scorer_model else 1.0)
        logits = ctx.classifier(self.hf_scorer_model).logits([ctx.image(path) for path in paths])
        return [round(float(value) / scale, 5) for value in logits[:, 0]]
