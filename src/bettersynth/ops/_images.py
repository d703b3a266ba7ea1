"""Shared pieces of operators that look at pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, TEXT, Batch, Mask, RangeFilter, Stats

if TYPE_CHECKING:
    from PIL.Image import Image

AnyOrAll = Literal["any", "all"]


def passes(rows: Sequence[Sequence[bool]], any_or_all: AnyOrAll) -> Mask:
    """Which rows stay: any or all of their pictures pass; rows without pictures always stay (Data-Juicer)."""
    test = any if any_or_all == "any" else all
    return np.array([not row or test(row) for row in rows], dtype=bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFilter(RangeFilter):
    """A range filter with one value per picture of a row.

    Args:
        any_or_all: keep when any picture passes, or only when all do.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "any_or_all")

    any_or_all: AnyOrAll = "any"

    def keep(self, stats: Stats) -> Mask:
        """Any or all values of a row inside the range."""
        rows = stats[self.stat].to_pylist()
        return passes([self.inside(np.asarray(row, np.float64)).tolist() for row in rows], self.any_or_all)

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """Named after the first picture's value."""
        if self.reversed_range:
            return [f"{self.stat} inside {self.bounds[0]}..{self.bounds[1]}"] * len(dropped)
        rows = stats[self.stat].take(dropped).to_pylist()
        below, _ = self._outside(np.array([row[0] for row in rows], np.float64))
        low, high = self.bounds
        return [f"{self.stat} below {low}" if under else f"{self.stat} above {high}" for under in below]


@dataclass(frozen=True, slots=True)
class ChunkPair:
    """A chunk of a row's text, without special tokens, and its opened pictures."""

    row: int
    text: str
    images: tuple[Image, ...]


def chunk_pairs(
    batch: Batch, ctx: OpContext, *, horizontal_flip: bool = False, vertical_flip: bool = False
) -> list[ChunkPair]:
    """The chunks of a batch that have pictures, in order.

    Raises:
        DataError: a text has more image tokens than the row has pictures; or a picture cannot be opened.
    """
    from PIL import ImageOps

    found = []
    texts, rows = batch.column(TEXT).to_pylist(), ctx.image_paths(batch)
    for row, (text, paths) in enumerate(zip(texts, rows, strict=True)):
        for chunk, offset, count in ctx.tokens.chunks(text) if paths else ():
            if not count:
                continue
            if offset + count > len(paths):
                raise DataError(t("more image tokens than images"), got=text[:80])
            images = [ctx.image(path) for path in paths[offset : offset + count]]
            if horizontal_flip:
                images = [ImageOps.mirror(image) for image in images]
            if vertical_flip:
                images = [ImageOps.flip(image) for image in images]
            found.append(ChunkPair(row, ctx.tokens.strip(chunk), tuple(images)))
    return found


def caption_pairs(batch: Batch, ctx: OpContext) -> list[ChunkPair]:
    """Rows with exactly one picture and the caption that goes with it; other rows are left out."""
    pairs = []
    texts, rows = batch.column(TEXT).to_pylist(), ctx.image_paths(batch)
    for row, (text, paths) in enumerate(zip(texts, rows, strict=True)):
        if len(paths) == 1 and ctx.tokens.num_images(text) == 1:
            pairs.append(ChunkPair(row, ctx.tokens.strip(text), (ctx.image(paths[0]),)))
    return pairs
