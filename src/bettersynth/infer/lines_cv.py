"""Straight lines found by OpenCV; needs the opencv package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bettersynth.infer.protocols import Line, LineSearch

if TYPE_CHECKING:
    from PIL.Image import Image


class HoughLines:
    """Canny's edges of the slightly blurred grey picture, then the probabilistic Hough transform, as in Data-Juicer.

    Source: Canny, A Computational Approach to Edge Detection (PAMI 1986); Matas, Galambos and Kittler, Robust Detection
    of Lines Using the Progressive Probabilistic Hough Transform (CVIU 2000).

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """

    digest = "opencv"

    def __init__(self) -> None:
        import cv2  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._cv2 = cv2

    def lines(self, images: Sequence[Image], search: LineSearch = LineSearch()) -> list[list[Line]]:
        """(x1, y1, x2, y2) lists."""
        cv2, found = self._cv2, []
        for image in images:
            grey = cv2.GaussianBlur(cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY), (5, 5), 0)
            edges = cv2.Canny(grey, search.weak_edge, search.strong_edge)
            lines = cv2.HoughLinesP(
                *(edges, 1, np.pi / 180, search.votes),
                minLineLength=search.min_length_px,
                maxLineGap=search.max_gap_px,
            )
            ends = [] if lines is None else np.asarray(lines).reshape(-1, 4).tolist()
            found.append([(x1, y1, x2, y2) for x1, y1, x2, y2 in ends])
        return found
