"""What the filters that look for faces share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bettersynth.infer.protocols import FaceSearch
from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter

Faces = list[tuple[int, int, int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceFilter(PixelFilter):
    """A filter by what an OpenCV cascade finds; the keys are spelled as in Data-Juicer (and OpenCV).

    Args:
        cv_classifier: an OpenCV cascade file; empty or None for the frontal-face cascade that OpenCV brings.
        scaleFactor: how much the search window grows from one round to the next, above 1.
        minNeighbors: overlapping finds that make a face.
        minSize: (width, height) of the smallest face in pixels.
        maxSize: (width, height) of the largest face in pixels.
    """

    per_entry: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("cv_classifier",)

    cv_classifier: str | None = None
    scaleFactor: float = 1.1  # noqa: N815
    minNeighbors: int = 3  # noqa: N815
    minSize: tuple[int, ...] | None = None  # noqa: N815
    maxSize: tuple[int, ...] | None = None  # noqa: N815

    def check(self) -> None:
        """Bounds in order, and a search that ends."""
        PictureFilter.check(self)
        check_search(self.scaleFactor, self.minSize, self.maxSize)

    def faces(self, paths: Sequence[Path], ctx: OpContext) -> list[Faces]:
        """(left, top, width, height) of the faces of each picture."""
        search = FaceSearch(self.scaleFactor, self.minNeighbors, self.minSize, self.maxSize)
        return ctx.faces(self.cv_classifier or "").faces([ctx.image(path) for path in paths], search)


def check_search(scale: float, *sizes: tuple[int, ...] | None) -> None:
    """Raise ValueError unless the window grows and sizes are pairs."""
    if scale <= 1:
        raise ValueError("scaleFactor must be above 1")
    if any(size is not None and len(size) != 2 for size in sizes):
        raise ValueError("minSize and maxSize are pairs: [width, height]")
