"""Keep rows whose pictures show a number of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._faces import FaceFilter
from bettersynth.ops._images import PictureFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFaceCountFilter(FaceFilter):
    """Number of detected faces, per entry, as in Data-Juicer; rows without pictures stay.

    Args:
        min_face_count: fewest faces.
        max_face_count: most faces.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.face_counts",)
    stat: ClassVar[str] = "face_counts"
    bounds: ClassVar[tuple[str, str]] = ("min_face_count", "max_face_count")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_face_count", "max_face_count")

    min_face_count: int = 1
    max_face_count: int = 1

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Faces of each picture."""
        return [float(len(faces)) for faces in self.faces(paths, ctx)]
