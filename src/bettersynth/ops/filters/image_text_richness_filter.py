"""Keep rows whose pictures bear much, or little, rendered text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, PixelFilter

if TYPE_CHECKING:
    from PIL.Image import Image

_CELL_PX = 16
_EDGE_LEVELS = 40
_PROMPTS = ("a picture with a lot of written text in it", "a picture without any written text")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextRichnessFilter(PixelFilter):
    """Share of the picture that looks like lettering, 0 to 1 (ours); for text-centric data, or to keep slides out.

    Without a model: the grey picture is cut in cells of 16 pixels (longer side at most ``side_px``). A cell looks like
    lettering when most of its rows cross several sharp edges, it has edges of both directions, and its pixels fall in
    two groups of grey (ink and ground) far apart; and when the cell beside it looks so too, as letters stand in lines.
    Fences, grids and foliage in full sun can pass for lettering; handwriting of thick strokes can be missed.

    Args:
        min_ratio: smallest share; None for no limit.
        max_ratio: largest share; None to score without dropping.
        side_px: longer side at which pictures are judged.
        hf_clip: folder of a CLIP model that judges instead: the probability of "a lot of written text" against
            "without any written text".
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.image_text_richness",)
    models: ClassVar[tuple[str, ...]] = ("hf_clip",)
    stat: ClassVar[str] = "image_text_richness"
    per_entry: ClassVar[bool] = True
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_ratio", "max_ratio")

    min_ratio: float | None = None
    max_ratio: float | None = 0.5
    side_px: int = 640
    hf_clip: str | None = None

    def check(self) -> None:
        """Bounds in order, and a side that holds a few cells."""
        PictureFilter.check(self)
        if self.side_px < 4 * _CELL_PX:
            raise ValueError(f"side_px must be at least {4 * _CELL_PX}")

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """Shares, to five decimals."""
        if self.hf_clip is None:
            return [round(lettering(ctx.small_image(path, self.side_px)), 5) for path in paths]
        scorer = ctx.scorer(self.hf_clip)
        images = [ctx.image(path) for path in paths]
        cosines_NP = np.asarray(scorer.embed_images(images)) @ np.asarray(scorer.embed_texts(_PROMPTS)).T
        return [round(float(1 / (1 + np.exp(100 * (b - a)))), 5) for a, b in cosines_NP]


def lettering(image: Image) -> float:
    """Share of the 16-pixel cells of a picture that look like lettering."""
    grey = np.asarray(image.convert("L"), np.int16)
    high, wide = (side // _CELL_PX for side in grey.shape)
    if high < 1 or wide < 2:
        return 0.0
    across = np.zeros(grey.shape, bool)
    down = np.zeros(grey.shape, bool)
    across[:, 1:] = np.abs(np.diff(grey, axis=1)) > _EDGE_LEVELS
    down[1:] = np.abs(np.diff(grey, axis=0)) > _EDGE_LEVELS
    crossings = _cells(across, high, wide).sum(3)  # [high, wide, row of the cell]
    busy = ((crossings >= 2).mean(2) >= 0.35) & (crossings.mean(2) <= 0.7 * _CELL_PX)
    busy &= _cells(down, high, wide).mean((2, 3)) >= 0.03
    found = np.zeros((high, wide), bool)
    found[busy] = _two_tone(_cells(grey, high, wide)[busy].reshape(-1, _CELL_PX**2).astype(np.float64))
    beside = np.zeros_like(found)
    beside[:, 1:] |= found[:, :-1]
    beside[:, :-1] |= found[:, 1:]
    return float((found & beside).mean())


def _cells(plane: npt.NDArray[Any], high: int, wide: int) -> npt.NDArray[Any]:
    """[high, wide, 16, 16] cells; what is left at the right and lower edge is not looked at."""
    whole = plane[: high * _CELL_PX, : wide * _CELL_PX]
    return whole.reshape(high, _CELL_PX, wide, _CELL_PX).swapaxes(1, 2)


def _two_tone(cells_NP: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which cells split into two greys: the best split leaves at most a fifth of the variance inside the groups.

    A fifth, because even noise leaves only a quarter (uniform) to a third (normal). The groups lie 50 levels apart.
    """
    ordered = np.sort(cells_NP, axis=1)
    count = ordered.shape[1]
    left = np.arange(1, count)
    sums = np.cumsum(ordered, axis=1)
    low, high = sums[:, :-1] / left, (sums[:, -1:] - sums[:, :-1]) / (count - left)
    between = left * (count - left) * (high - low) ** 2 / count**2
    best = between.argmax(1)
    rows = np.arange(len(ordered))
    share_between = between[rows, best] / np.maximum(ordered.var(1), 1e-9)
    found: npt.NDArray[np.bool_] = (share_between >= 0.8) & ((high - low)[rows, best] >= 50)
    return found
