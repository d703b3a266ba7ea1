"""Keep rows whose picture files have a size within a range."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter
from bettersynth.ops.base import Batch, RangeFilter, Stats

_UNITS = {"": 0, "bytes": 0, "kb": 10, "kib": 10, "mb": 20, "mib": 20, "gb": 30, "gib": 30, "tb": 40, "tib": 40}


def parse_size(text: str) -> int:
    """Bytes of a size with unit. Units are powers of 1024; all digits are joined and a dot is ignored (Data-Juicer).

    >>> parse_size("2KB"), parse_size("1.5MB") == 15 * 2**20
    (2048, True)

    Raises:
        ValueError: no digits, or an unknown unit.
    """
    digits, unit = "".join(re.findall(r"\d", text)), "".join(re.findall("[A-Za-z]", text)).lower()
    if not digits or unit not in _UNITS:
        raise ValueError(f"not a size: {text!r}; write for example '10KB' or '5MB'")
    return int(digits) << _UNITS[unit]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSizeFilter(PictureFilter):
    """File size in bytes; the file is not opened. Rows without pictures stay.

    Args:
        min_size: smallest size, e.g. ``10KB``. Note that a dot is ignored: ``1.5MB`` is 15 MiB, as in Data-Juicer.
        max_size: largest size.
    """

    writes: ClassVar[tuple[str, ...]] = ("stats.image_sizes",)
    stat: ClassVar[str] = "image_sizes"
    bounds: ClassVar[tuple[str, str]] = ("min_size", "max_size")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_size", "max_size")
    at_once: ClassVar[bool] = True

    min_size: str = "0"
    max_size: str = "1TB"

    def check(self) -> None:
        """Both sizes must be readable; fitted bounds make no sense for sizes with units."""
        if self.adaptive_threshold is not None:
            raise ValueError("adaptive_threshold is not available for file sizes")
        RangeFilter.check(self)

    def limits(self) -> tuple[float | None, float | None]:
        """Both bounds in bytes."""
        return parse_size(self.min_size), parse_size(self.max_size)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``image_sizes``: lists of bytes, one entry a picture."""
        rows = [[ctx.file_size(place) for place in places] for places in ctx.image_places(batch)]
        return {self.stat: pa.array(rows, pa.list_(pa.int64()))}
