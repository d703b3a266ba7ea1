"""Keep rows whose pictures are not filled by a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFaceRatioFilter(PixelFilter):
    """Area of the largest detected face / picture area, per entry, as in Data-Juicer; rows without pictures stay.

    Args:
        cv_classifier: an OpenCV cascade file; None for the frontal-face cascade that OpenCV brings.
        min_ratio: smallest share.
        max_ratio: largest share.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.face_ratios",)
    stat: ClassVar[str] = "face_ratios"
    per_entry: ClassVar[bool] = True
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_ratio", "max_ratio")
    models: ClassVar[tuple[str, ...]] = ("cv_classifier",)

    cv_classifier: str | None = None
    min_ratio: float = 0.0
    max_ratio: float = 0.4

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Shares of the largest face, 0 without one."""
        images = [ctx.image(path) for path in paths]
        found = ctx.faces(self.cv_classifier or "").faces(images)
        return [
            max((width * height for _, _, width, height in faces), default=0) / (image.width * image.height)
            for image, faces in zip(images, found, strict=True)
        ]
