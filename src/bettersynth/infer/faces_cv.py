"""Faces found by an OpenCV cascade; needs the opencv package, which nothing else here does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.infer.protocols import FaceSearch

if TYPE_CHECKING:
    from PIL.Image import Image


class CascadeFaces:
    """Viola and Jones' detector (CVPR 2001) with OpenCV's defaults, as Data-Juicer calls it.

    Args:
        classifier: a cascade file (``haarcascade_frontalface_alt.xml``), or None for the one OpenCV brings.

    Raises:
        ModuleNotFoundError: OpenCV is not installed, or has no cascades. DataError: no cascade in this file.
    """

    def __init__(self, classifier: Path | None) -> None:
        import cv2  # type: ignore[import-not-found,import-untyped,unused-ignore]

        if not hasattr(cv2, "CascadeClassifier"):  # plain OpenCV 5 has none any more
            raise ModuleNotFoundError("no cascades in this OpenCV", name="cv2.CascadeClassifier")
        self._cv2 = cv2
        place = classifier or Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt.xml"
        self.model = cv2.CascadeClassifier(str(place))
        if self.model.empty():
            raise DataError(t("cannot load the model"), where=str(place))
        self.digest = str(place)

    def faces(
        self, images: Sequence[Image], search: FaceSearch = FaceSearch()
    ) -> list[list[tuple[int, int, int, int]]]:
        """(left, top, width, height) lists, clipped to the picture."""
        found = []
        for image in images:
            grey = self._cv2.cvtColor(np.asarray(image), self._cv2.COLOR_RGB2GRAY)
            boxes = self.model.detectMultiScale(
                grey,
                scaleFactor=search.scale,
                minNeighbors=search.neighbours,
                minSize=search.min_size,
                maxSize=search.max_size,
            )
            found.append([_clip(tuple(int(v) for v in box), image.size) for box in boxes])
        return found


def _clip(box: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, width, height = box
    left, top = max(left, 0), max(top, 0)
    return left, top, min(width, size[0] - left), min(height, size[1] - top)
