"""Add copies of rows with mirrored, turned or cropped pictures, as far as their captions stay or can be made true."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bettersynth.ops._caption_guard import exchange_sides, may_mirror, names_extent, names_upright
from bettersynth.ops._context import OpContext
from bettersynth.ops._new_pictures import PictureAugmenter

if TYPE_CHECKING:
    from PIL.Image import Image

_MILD_DEGREES = 7.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGeometryAugmentMapper(PictureAugmenter):
    """Mirror, turn a little, crop a little (ours).

    A mirrored picture's caption has left and right exchanged, or is left alone with ``on_sides: skip``; captions that
    speak of lettering, clocks or maps are never mirrored. Captions that name places, numbers or lettering are not
    cropped (nor turned, as that cuts the corners). A caption that allows nothing gets no copy.

    Args:
        flip_p: share of the copies that are mirrored, 0 to 1.
        max_degrees: largest turn to either side; the corners that would be empty are cut off.
        min_area: smallest share of the picture that a crop leaves, 0 to 1; 1 for no crops.
        on_sides: what a caption that names left or right gets when mirrored: the words swapped, or no mirroring.
    """

    flip_p: float = 0.5
    max_degrees: float = 5.0
    min_area: float = 0.85
    on_sides: Literal["swap", "skip"] = "swap"

    def check(self) -> None:
        """Shares, an angle, and at least one change."""
        PictureAugmenter.check(self)
        if not 0 <= self.flip_p <= 1 or not 0 < self.min_area <= 1 or not 0 <= self.max_degrees <= 45:
            raise ValueError("flip_p and min_area are shares of 1, max_degrees lies between 0 and 45")
        if self.flip_p == 0 and self.min_area == 1 and self.max_degrees == 0:
            raise ValueError("nothing to change: give flip_p, max_degrees or min_area")

    def augment(self, path: Path, text: str, ctx: OpContext, generator: random.Random) -> tuple[Image, str] | str:
        """The changed picture and its text, perhaps with left and right exchanged."""
        from PIL import ImageOps

        wants_flip = generator.random() < self.flip_p
        degrees = generator.uniform(-self.max_degrees, self.max_degrees)
        area = generator.uniform(self.min_area, 1.0)
        corner = (generator.random(), generator.random())
        caption = ctx.tokens.strip(text)
        mirrored = exchange_sides(text) if wants_flip and may_mirror(caption) else None
        if mirrored is not None and mirrored != text and self.on_sides == "skip":
            mirrored = None
        if names_extent(caption):
            degrees, area = 0.0, 1.0
        elif abs(degrees) > _MILD_DEGREES and names_upright(caption):
            degrees = 0.0
        if mirrored is None and not degrees and area == 1.0:
            return "the caption allows no change"
        image = ctx.image(path)
        if mirrored is not None:
            image = ImageOps.mirror(image)
        if degrees:
            image = turn(image, degrees)
        if area < 1:
            image = crop(image, math.sqrt(area), corner)
        return image, text if mirrored is None else mirrored


def turn(image: Image, degrees: float) -> Image:
    """Turn around the middle and cut out the largest upright rectangle without empty corners."""
    from PIL import Image as Pictures

    turned = image.rotate(degrees, Pictures.Resampling.BICUBIC)
    width, height = inner_rectangle(image.width, image.height, math.radians(degrees))
    width, height = max(1, min(int(width), image.width)), max(1, min(int(height), image.height))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return turned.crop((left, top, left + width, top + height))


def inner_rectangle(width: float, height: float, angle: float) -> tuple[float, float]:
    """Sides of the largest upright rectangle inside a rectangle turned by ``angle`` (radians).

    >>> inner_rectangle(4, 3, 0.0)
    (4.0, 3.0)
    """
    sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
    long, short = max(width, height), min(width, height)
    if short <= 2 * sine * cosine * long or abs(sine - cosine) < 1e-10:
        # Half constrained: two corners touch the longer side, the other two lie on the middle line.
        half = short / 2
        across, along = half / sine, half / cosine
        return (across, along) if width >= height else (along, across)
    twist = cosine * cosine - sine * sine
    return (width * cosine - height * sine) / twist, (height * cosine - width * sine) / twist


def crop(image: Image, side: float, corner: tuple[float, float]) -> Image:
    """Cut out a rectangle of the picture's proportions; ``corner`` (0 to 1 each) says where."""
    width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
    left, top = round((image.width - width) * corner[0]), round((image.height - height) * corner[1])
    return image.crop((left, top, left + width, top + height))
