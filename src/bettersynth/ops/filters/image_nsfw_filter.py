"""Keep rows whose pictures are safe for work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter, second_class


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNsfwFilter(PixelFilter):
    """How likely each distinct picture is not safe for work, as in Data-Juicer; rows without pictures stay.

    Args:
        hf_nsfw_model: folder of a picture classifier whose second class is the unsafe one.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        min_score: smallest probability; None for no limit.
        max_score: largest probability; None to score without dropping.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.image_nsfw_score",)
    models: ClassVar[tuple[str, ...]] = ("hf_nsfw_model",)
    stat: ClassVar[str] = "image_nsfw_score"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_score", "max_score")

    hf_nsfw_model: str = "Falconsai/nsfw_image_detection"
    trust_remote_code: bool = False
    min_score: float | None = 0.0
    max_score: float | None = 0.5

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Probability of the second class, to five decimals."""
        return second_class(ctx.classifier(self.hf_nsfw_model).logits([ctx.image(path) for path in paths]))
