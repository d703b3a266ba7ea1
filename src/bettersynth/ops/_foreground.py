"""Foreground without a model: what differs from the colours along the picture's border."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bettersynth.ops._context import OpContext

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE_PX = 256
_CLUSTERS = 3


def foreground(image: Image, model: str | None, ctx: OpContext) -> npt.NDArray[np.float64]:
    """[height, width] share of foreground, 0 to 1, by a model or by the border's colours."""
    if model is not None:
        return np.asarray(ctx.segmenter(model).foreground([image])[0], np.float64)
    return by_border(image)


def by_border(image: Image) -> npt.NDArray[np.float64]:
    """Zero where a pixel has one of the border's main colours, one where it is far from all of them.

    The border pixels (a frame of 1/20 of the side) are grouped around up to three colours, and each group's own spread
    sets how far is far. Good for products and logos on plain grounds, useless on cluttered scenes; callers check the
    resulting share.
    """
    from PIL import Image as Pictures

    small = image.copy()
    small.thumbnail((_SIDE_PX, _SIDE_PX), Pictures.Resampling.BOX)
    pixels = np.asarray(small, np.float64)
    height, width = pixels.shape[:2]
    edge = max(1, min(height, width) // 20)
    frame = np.ones((height, width), bool)
    frame[edge : height - edge, edge : width - edge] = False
    border_NC = pixels[frame]
    far = np.full((height, width), np.inf)
    for centre, spread in _colours(border_NC):
        far = np.minimum(far, np.sqrt(((pixels - centre) ** 2).sum(2)) / spread)
    mask = np.clip((far - 3.0) / 2.0, 0.0, 1.0)
    whole = Pictures.fromarray((mask * 255).astype(np.uint8)).resize(image.size, Pictures.Resampling.BILINEAR)
    return np.asarray(whole, np.float64) / 255


def _colours(pixels_NC: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], float]]:
    """(colour, spread) of the groups of a few rounds of k-means started at brightness quantiles; tiny groups go."""
    order = np.argsort(pixels_NC.sum(1), kind="stable")
    centres = pixels_NC[order[[len(order) // 10, len(order) // 2, 9 * len(order) // 10][:_CLUSTERS]]]
    labels = np.zeros(len(pixels_NC), np.int64)
    for _ in range(6):
        labels = ((pixels_NC[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        centres = np.array(
            [pixels_NC[labels == n].mean(0) if (labels == n).any() else c for n, c in enumerate(centres)]
        )
    found = []
    for number, centre in enumerate(centres):
        members = pixels_NC[labels == number]
        if len(members) >= 0.05 * len(pixels_NC):
            # 8 levels are the least: JPEG noise and soft shadows.
            found.append((centre, max(8.0, float(np.sqrt(((members - centre) ** 2).sum(1).mean())))))
    return found
