"""Shared pieces of operators that look at pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops._arrow import flatten, lengths, take
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, TEXT, Batch, Mask, RangeFilter, Stats

if TYPE_CHECKING:
    from PIL.Image import Image

AnyOrAll = Literal["any", "all"]
ReduceMode = Literal["avg", "max", "min"]


def passes(column: Any, accepted: Mask, any_or_all: AnyOrAll) -> Mask:
    """Which rows stay: any or all of their pictures pass; rows without pictures always stay (Data-Juicer).

    Args:
        column: a list column with one entry per picture.
        accepted: which of all the entries, in order, pass.
    """
    sizes = lengths(column)
    hits = np.bincount(np.repeat(np.arange(len(sizes)), sizes), weights=accepted, minlength=len(sizes))
    kept: Mask = (sizes == 0) | (hits > 0 if any_or_all == "any" else hits == sizes)
    return kept


def entries(column: Any) -> npt.NDArray[np.float64]:
    """All numbers of a list column, in order."""
    return np.asarray(flatten(column).to_numpy(zero_copy_only=False), np.float64)


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
        column = stats[self.stat]
        return passes(column, self.inside(entries(column)), self.any_or_all)

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """Named after the first picture's value."""
        if self.reversed_range:
            return [f"{self.stat} inside {self.bounds[0]}..{self.bounds[1]}"] * len(dropped)
        rows = take(stats[self.stat], dropped).to_pylist()
        below, _ = self._outside(np.array([row[0] for row in rows], np.float64))
        low, high = self.bounds
        return [f"{self.stat} below {low}" if under else f"{self.stat} above {high}" for under in below]


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFilter(PictureFilter):
    """A picture filter whose values come from decoded pictures; each distinct picture of a batch is judged once.

    ``per_entry`` says whether a picture that a row names twice counts twice; Data-Juicer counts it once wherever it
    keeps values by path, and the operators say which way theirs goes.
    """

    pixels: ClassVar[bool] = True
    per_entry: ClassVar[bool] = False

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """Lists of numbers, one per picture (or per distinct picture)."""
        rows = ctx.image_paths(batch)
        if not self.per_entry:
            rows = [list(dict.fromkeys(paths)) for paths in rows]
        distinct = list(dict.fromkeys(path for paths in rows for path in paths))
        values = dict(zip(distinct, self.values(distinct, ctx), strict=True)) if distinct else {}
        column = [[values[path] for path in paths] for paths in rows]
        return {self.stat: pa.array(column, pa.list_(pa.float64()))}

    def values(self, paths: Sequence[Path], ctx: OpContext) -> list[float]:
        """One number per picture."""
        raise NotImplementedError


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


def reduce_chunks(
    pairs: Sequence[ChunkPair], values: Sequence[float] | npt.NDArray[Any], mode: ReduceMode, num_rows: int
) -> Any:
    """Lists of numbers, one per chunk with pictures, to five decimals.

    Args:
        pairs: the chunks.
        values: one number per picture of all chunks, in order.
        mode: how the numbers of a chunk's pictures become one.
        num_rows: rows of the batch.
    """
    choices: dict[str, Callable[..., Any]] = {"avg": np.mean, "max": np.max, "min": np.min}
    reduce = choices[mode]
    rows: list[list[float]] = [[] for _ in range(num_rows)]
    start = 0
    for pair in pairs:
        stop = start + len(pair.images)
        rows[pair.row].append(round(float(reduce(values[start:stop])), 5))
        start = stop
    return pa.array(rows, pa.list_(pa.float64()))


def caption_pairs(batch: Batch, ctx: OpContext) -> list[ChunkPair]:
    """Rows with exactly one picture and the caption that goes with it; other rows are left out."""
    pairs = []
    texts, rows = batch.column(TEXT).to_pylist(), ctx.image_paths(batch)
    for row, (text, paths) in enumerate(zip(texts, rows, strict=True)):
        if len(paths) == 1 and ctx.tokens.num_images(text) == 1:
            pairs.append(ChunkPair(row, ctx.tokens.strip(text), (ctx.image(paths[0]),)))
    return pairs


def second_class(logits_NC: npt.NDArray[Any]) -> list[float]:
    """Softmax probability of the second class of each picture, to five decimals.

    Raises:
        DataError: the model has one class only.
    """
    if logits_NC.shape[1] < 2:
        raise DataError(t("the classifier has one class only"), expected="2")
    shifted = np.exp(logits_NC - logits_NC.max(1, keepdims=True), dtype=np.float64)
    return [round(float(value), 5) for value in shifted[:, 1] / shifted.sum(1)]
