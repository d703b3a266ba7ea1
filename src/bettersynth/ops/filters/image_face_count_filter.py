"""Keep rows whose pictures show a number of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFaceCountFilter(PixelFilter):
    """Number of detected faces, per entry, as in Data-Juicer; rows without pictures stay.

    Args:
        cv_classifier: an OpenCV cascade file; None for the frontal-face cascade that OpenCV brings.
        min_face_count: fewest faces.
        max_face_count: most faces.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.face_counts",)
    stat: ClassVar[str] = "face_counts"
    per_entry: ClassVar[bool] = True
    bounds: ClassVar[tuple[str, str]] = ("min_face_count", "max_face_count")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_face_count", "max_face_count")
    models: ClassVar[tuple[str, ...]] = ("cv_classifier",)

    cv_classifier: str | None = None
    min_face_count: int = 1
    max_face_count: int = 1

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Faces of each picture."""
        found = ctx.faces(self.cv_classifier or "").faces([ctx.image(path) for path in paths])
        return [float(len(faces)) for faces in found]
