"""How much the straight lines of a picture look like a grid of subplots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bettersynth.infer.protocols import Line

_NEAR = 0.05  # of the picture's side: lines that are closer on average are texture
_SHORT = 0.3  # of the picture's side: shorter lines hardly part anything


@dataclass(frozen=True, slots=True)
class Grid:
    """Lines of a picture by direction.

    Args:
        across, down: horizontal and vertical lines. width, height: of the picture in pixels.
    """

    across: tuple[Line, ...]
    down: tuple[Line, ...]
    width: int
    height: int

    @classmethod
    def of(cls, lines: Sequence[Line], size: tuple[int, int], tolerance: float) -> Grid:
        """Lines sorted into the two directions; slanted ones, by more than ``tolerance`` degrees, are left out."""
        across, down = [], []
        for line in lines:
            x1, y1, x2, y2 = line
            angle = 90.0 if x1 == x2 else math.degrees(math.atan2(y2 - y1, x2 - x1))
            if abs(angle) <= tolerance or abs(angle - 180) <= tolerance:
                across.append(line)
            elif abs(angle - 90) <= tolerance or abs(angle + 90) <= tolerance:
                down.append(line)
        return cls(tuple(across), tuple(down), *size)

    def confidence(self, wanted: tuple[int, int]) -> float:
        """0 to 1: enough lines each way, evenly spaced, of equal length, crossing often; as Data-Juicer weighs it.

        Args:
            wanted: horizontal and vertical lines that count as enough.
        """
        if not self.across or not self.down:
            return 0.0
        places = [[(y1 + y2) / 2 for _, y1, _, y2 in self.across], [(x1 + x2) / 2 for x1, _, x2, _ in self.down]]
        lengths = [[abs(x2 - x1) for x1, _, x2, _ in self.across], [abs(y2 - y1) for _, y1, _, y2 in self.down]]
        sides = (self.height, self.width)
        enough = [min(len(lines) / most, 1.0) for lines, most in zip((self.across, self.down), wanted, strict=True)]
        spaced = [
            _evenness(np.diff(sorted(found)), side * _NEAR) if len(found) > 1 else 0.0
            for found, side in zip(places, sides, strict=True)
        ]
        equal = [
            _evenness(np.array(found), side * _SHORT) if len(found) > 1 else 0.0
            for found, side in zip(lengths, sides[::-1], strict=True)
        ]
        crossing = 0.0
        if len(self.across) > 1 and len(self.down) > 1:
            crossings = len(self.across) * len(self.down)
            crossing = min(crossings / (self.width * self.height) * 10_000 / 10.0, 1.0)
        parts = (enough[0] * 0.2, enough[1] * 0.2, spaced[0] * 0.15, spaced[1] * 0.15, crossing * 0.2)
        return float(min(sum((*parts[1:], equal[0] * 0.05, equal[1] * 0.05), parts[0]), 1.0))


def _evenness(values: np.ndarray, least: float) -> float:  # type: ignore[type-arg]
    """1 for equal values, falling with their spread to 0; half of that when they are small on average."""
    mean = np.mean(values)
    if mean == 0:
        return 0.0
    even = max(0.0, float(1 - np.std(values) / mean))
    return even * 0.5 if mean < least else even
