"""Drop texts that repeat runs of characters."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core import native
from bettersynth.ops._arrow import array, take
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import I64, Codes, codes_of, gram_hashes, rows_that_repeat
from bettersynth.ops.base import TEXT, Batch, RangeFilter, Stats

_LONG = 1 << 27  # characters of a text from which on the compiled table would be too large


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterRepetitionFilter(RangeFilter):
    """Share of the most frequent character n-grams among all, as in Data-Juicer (after the ROOTS corpus pipeline).

    With D distinct n-grams, S of them occurring once, the k = min(floor(sqrt(D)), D - S) largest counts are summed.

    Args:
        rep_len: n, in characters.
        min_ratio: smallest share, 0 to 1.
        max_ratio: largest share.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.char_rep_ratio",)
    stat: ClassVar[str] = "char_rep_ratio"
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_ratio", "max_ratio")
    at_once: ClassVar[bool] = True

    rep_len: int = 10
    min_ratio: float = 0.0
    max_ratio: float | None = 0.5

    def check(self) -> None:
        """n must be positive."""
        if self.rep_len < 1:
            raise ValueError("rep_len must be at least 1")

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``char_rep_ratio``: 0 for a text shorter than n, and for one whose n-grams all differ."""
        codes = codes_of(batch.column(TEXT))
        library = native.library(len(codes))
        if library is not None and _agrees(library) and codes.lengths.max(initial=0) < _LONG:
            return {self.stat: array(_compiled_ratios(library, codes, self.rep_len))}
        grams = gram_hashes(codes.codes, self.rep_len)
        # N-grams that reach into the next text may add a text to look at, which does no harm.
        repeating = rows_that_repeat(codes.rows[: len(grams)], grams)
        repeating = repeating[codes.lengths[repeating] >= self.rep_len]
        ratios = np.zeros(len(codes))
        if len(repeating):
            ratios[repeating] = _ratios(Codes(take(batch.column(TEXT), repeating)), self.rep_len)
        return {self.stat: array(ratios)}


def _compiled_ratios(library: Any, codes: Codes, n: int) -> npt.NDArray[np.float64]:
    ratios = np.empty(len(codes))
    numbers = (ctypes.c_int64(len(codes)), ctypes.c_int64(n))
    where = (native.address(codes.codes), native.address(codes.starts))
    if library.bs_char_repetition(*where, *numbers, native.address(ratios)):
        raise MemoryError
    return ratios


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    """Whether the compiled function says what numpy says."""
    draw = np.random.default_rng(4)
    texts = ["".join(map(chr, draw.integers(97, 97 + wide, size))) for wide in (1, 2, 9) for size in (3, 40, 300)]
    texts += ["\u4f60\u597d" * 30, "a\U0001f600b" * 20]
    codes = Codes(pa.array(texts, pa.string()))
    return all(np.array_equal(_compiled_ratios(library, codes, n), _ratios(codes, n)) for n in (1, 2, 3))


def _ratios(codes: Codes, n: int) -> npt.NDArray[np.float64]:
    """[N] share of repeated n-grams, for texts of at least n characters."""
    _, rows, counts = _runs(codes, n)
    totals = codes.lengths - n + 1
    distinct = np.bincount(rows, minlength=len(codes))
    several = counts > 1
    rows, counts = rows[several], counts[several]
    num_several = np.bincount(rows, minlength=len(codes))
    # floor(sqrt) of an integer below 2^52 is exact in floating point
    top = np.minimum(np.floor(np.sqrt(distinct)).astype(np.int64), num_several)
    order = np.lexsort((-counts, rows))
    rows, counts = rows[order], counts[order]
    rank = np.arange(len(rows)) - (np.cumsum(num_several) - num_several)[rows]
    taken = rank < top[rows]
    return np.bincount(rows[taken], weights=counts[taken], minlength=len(codes)) / totals


def _runs(codes: Codes, n: int) -> tuple[I64, I64, I64]:
    """(a place, the row, how often) of each distinct n-gram, compared by its characters."""
    count = max(0, len(codes.codes) - n + 1)
    rows = codes.rows[:count]
    places = np.flatnonzero(rows == codes.rows[len(codes.rows) - count :])
    keys = (rows[places].astype(np.uint64) << np.uint64(32)) | gram_hashes(codes.codes, n)[places]
    order = np.argsort(keys, kind="stable")
    places, keys = places[order], keys[order]
    fresh = np.ones(len(places), bool)
    fresh[1:] = keys[1:] != keys[:-1]
    same = np.flatnonzero(~fresh)
    windows: Any = np.lib.stride_tricks.sliding_window_view(codes.codes, n)
    clash = (windows[places[same]] != windows[places[same - 1]]).any(axis=1)
    if clash.any():  # two n-grams of one text share a hash: sort that text's n-grams themselves
        return _runs_by_content(codes, n, places, windows)
    starts = np.flatnonzero(fresh)
    return places[starts], rows[places[starts]].astype(np.int64), np.diff(np.append(starts, len(places)))


def _runs_by_content(codes: Codes, n: int, places: I64, windows: Any) -> tuple[I64, I64, I64]:
    rows = codes.rows[places].astype(np.uint32)
    table = np.concatenate([rows[:, None], windows[places]], axis=1)
    _, first, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    return places[first], rows[first].astype(np.int64), counts
