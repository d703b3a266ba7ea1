"""Drop rows whose pictures are grids of plots or panels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.infer.protocols import LineSearch
from bettersynth.ops._context import OpContext
from bettersynth.ops._grids import Grid
from bettersynth.ops._images import AnyOrAll, entries, passes
from bettersynth.ops.base import IMAGES, Batch, Filter, Mask, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSubplotFilter(Filter):
    """Straight horizontal and vertical lines, and how much they look like a grid, as in Data-Juicer.

    Rows without pictures stay. A picture that cannot be opened sets its row aside; there it counts as no grid.

    Args:
        min_horizontal_lines, min_vertical_lines: lines that a picture of subplots has at least.
        min_confidence: smallest confidence, 0 to 1, from which on a picture counts as subplots.
        any_or_all: drop when any picture has subplots, or only when all have.
        canny_threshold1, canny_threshold2: gradients of weak and strong edges.
        hough_threshold: edge pixels that a line needs.
        min_line_length: in pixels.
        max_line_gap: in pixels.
        angle_tolerance: degrees by which a line may slant.
        line_detector: empty for OpenCV's, which needs the ``faces`` extra.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    writes: ClassVar[tuple[str, ...]] = (
        "stats.image_subplot_confidence",
        "stats.horizontal_peak_count",
        "stats.vertical_peak_count",
    )
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("line_detector",)
    keep_params: ClassVar[tuple[str, ...]] = ("min_confidence", "any_or_all")

    min_horizontal_lines: int = 3
    min_vertical_lines: int = 3
    min_confidence: float = 0.5
    any_or_all: AnyOrAll = "any"
    canny_threshold1: int = 70
    canny_threshold2: int = 190
    hough_threshold: int = 110
    min_line_length: int = 110
    max_line_gap: int = 18
    angle_tolerance: float = 4.0
    line_detector: str = ""

    def check(self) -> None:
        """A grid has lines."""
        if self.min_horizontal_lines < 1 or self.min_vertical_lines < 1:
            raise ValueError("min_horizontal_lines and min_vertical_lines must be at least 1")

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """Confidence, and the number of lines each way, of each picture."""
        rows = ctx.image_paths(batch)
        distinct = list(dict.fromkeys(path for paths in rows for path in paths))
        found = {}
        if distinct:
            images = [ctx.image(path) for path in distinct]
            search = LineSearch(
                *(self.canny_threshold1, self.canny_threshold2, self.hough_threshold),
                *(self.min_line_length, self.max_line_gap),
            )
            for path, image, lines in zip(
                distinct, images, ctx.lines(self.line_detector).lines(images, search), strict=True
            ):
                grid = Grid.of(lines, image.size, self.angle_tolerance)
                confidence = grid.confidence((self.min_horizontal_lines, self.min_vertical_lines))
                found[path] = (confidence, len(grid.across), len(grid.down))
        columns = zip(self.writes, (pa.float64(), pa.int64(), pa.int64()), strict=True)
        return {
            name.removeprefix("stats."): pa.array(
                [[found[path][n] for path in paths] for paths in rows], pa.list_(kind)
            )
            for n, (name, kind) in enumerate(columns)
        }

    def keep(self, stats: Stats) -> Mask:
        """Rows without subplots; ``any_or_all`` says how many of a row's pictures may have them."""
        confidence, across, down = (stats[name.removeprefix("stats.")] for name in self.writes)
        is_grid = entries(confidence) >= self.min_confidence
        is_grid &= (entries(across) >= self.min_horizontal_lines) & (entries(down) >= self.min_vertical_lines)
        # A row stays when all (or, for "all", any) of its pictures are no grid.
        return passes(confidence, ~is_grid, "all" if self.any_or_all == "any" else "any")

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """One reason for all."""
        return ["picture of subplots"] * len(dropped)
