"""Blur the faces in pictures; the new ones are new files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bettersynth.infer.protocols import FaceSearch
from bettersynth.ops._context import OpContext
from bettersynth.ops._faces import check_search
from bettersynth.ops._new_pictures import PictureMapper
from bettersynth.ops.mappers.image_blur_mapper import BlurType, blur

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFaceBlurMapper(PictureMapper):
    """Every detected face is blurred in place, as in Data-Juicer; pictures without faces stay as they are.

    Args:
        cv_classifier: an OpenCV cascade file; empty or None for the frontal-face cascade that OpenCV brings.
        blur_type: Gaussian, box, or ``mean``: Pillow's fixed 5 x 5 kernel, which has no radius.
        radius: in pixels.
        scaleFactor: how much the search window grows from one round to the next, above 1.
        minNeighbors: overlapping finds that make a face.
        minSize: (width, height) of the smallest face in pixels.
        maxSize: (width, height) of the largest face in pixels.
    """

    models: ClassVar[tuple[str, ...]] = ("cv_classifier",)

    cv_classifier: str | None = None
    blur_type: BlurType = "gaussian"
    radius: float = 2
    scaleFactor: float = 1.1  # noqa: N815
    minNeighbors: int = 3  # noqa: N815
    minSize: tuple[int, ...] | None = None  # noqa: N815
    maxSize: tuple[int, ...] | None = None  # noqa: N815

    def check(self) -> None:
        """A radius that is none below 0, and a search that ends."""
        check_search(self.scaleFactor, self.minSize, self.maxSize)
        if self.radius < 0:
            raise ValueError("radius must not be negative")

    def change(self, path: Path, ctx: OpContext, generator: random.Random) -> Image | None:
        """The picture with its faces blurred, or None without faces."""
        image = ctx.image(path)
        search = FaceSearch(self.scaleFactor, self.minNeighbors, self.minSize, self.maxSize)
        faces = ctx.faces(self.cv_classifier or "").faces([image], search)[0]
        if not faces:
            return None
        new = image.copy()
        for left, top, width, height in faces:
            box = (left, top, left + width, top + height)
            new.paste(blur(image.crop(box), self.blur_type, self.radius), box)
        return new
