"""Keep rows whose pictures are not filled by a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._faces import FaceFilter
from bettersynth.ops._images import PictureFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFaceRatioFilter(FaceFilter):
    """Area of the largest detected face / picture area, per entry, as in Data-Juicer; rows without pictures stay.

    Args:
        min_ratio: smallest share.
        max_ratio: largest share.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.face_ratios",)
    stat: ClassVar[str] = "face_ratios"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_ratio", "max_ratio")

    min_ratio: float = 0.0
    max_ratio: float = 0.4

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Shares of the largest face, 0 without one."""
        found = []
        for path, faces in zip(paths, self.faces(paths, ctx), strict=True):
            largest = max((width * height for _, _, width, height in faces), default=0)
            found.append(largest / (ctx.image(path).width * ctx.image(path).height))
        return found
