"""Texts as arrays of code points, so that whole batches are classified, counted and compared at once.

Everything here is exact: a table gives the same answer as the Python function it was made from, for every character.
Hashes are only ever used to find rows that *may* repeat something; such rows are then compared by their characters.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core import native
from bettersynth.ops._arrow import array, call, take
from bettersynth.ops.base import TEXT, Batch, Mask, TextMapper, with_column

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
_UNKNOWN = 255
_FACTOR = 0x9E3779B1  # odd, so that it can be divided by modulo a power of two; 2^32 over the golden ratio


class Codes:
    """The code points of N texts, one after the other.

    Args:
        column: Arrow string array without nulls.

    Attributes:
        codes: [C] code points. starts: [N + 1] where each text begins, and the end. narrow: [C] the same, with 255
            for all that do not fit a byte. wide: positions of code points above 254.
    """

    __slots__ = ("_rows", "codes", "is_ascii", "narrow", "starts", "wide")

    def __init__(self, column: Any) -> None:
        _, offsets_buffer, data = column.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[column.offset : column.offset + len(column) + 1]
        raw = b"" if data is None else bytes(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
        self._rows: U32 | None = None
        self.is_ascii = raw.isascii()
        if self.is_ascii:
            self.narrow, self.wide = np.frombuffer(raw, np.uint8), np.zeros(0, np.int64)
            self.codes = self.narrow.astype(np.uint32)
            self.starts = (offsets - offsets[0]).astype(np.int64)
            return
        library = native.library(len(column))
        decode = _decoded if library is None or not _decodes(library) else partial(_compiled_codes, library)
        self.codes, self.narrow, self.starts = decode(raw, offsets)
        self.wide = np.flatnonzero(self.codes > 254)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> I64:
        """[N] characters of each text."""
        lengths: I64 = self.starts[1:] - self.starts[:-1]
        return lengths

    @property
    def rows(self) -> U32:
        """[C] the text each character belongs to."""
        if self._rows is None:
            self._rows = np.repeat(np.arange(len(self), dtype=np.uint32), self.lengths)
        return self._rows

    def sums(self, values: npt.NDArray[Any]) -> I64:
        """[N] sum of the characters' values in each text."""
        out = np.zeros(len(self), np.int64)
        filled = np.flatnonzero(self.lengths)
        if len(filled):
            out[filled] = np.add.reduceat(values, self.starts[filled], dtype=np.int64)
        return out

    def rows_at(self, positions: I64) -> I64:
        """The texts, each once and in order, that hold these characters."""
        there = np.zeros(len(self), bool)
        there[np.searchsorted(self.starts[1:], positions, side="right")] = True
        return np.flatnonzero(there)

    def rows_with(self, flags: npt.NDArray[Any]) -> I64:
        """The texts with at least one character whose flag is set."""
        return self.rows_at(np.flatnonzero(flags))


def _decoded(raw: bytes, offsets: npt.NDArray[np.int32]) -> tuple[U32, U8, I64]:
    """Code points of UTF-8, the same as bytes with 255 for all above, and where each text begins among them."""
    is_first = (np.frombuffer(raw, np.uint8) & 0xC0) != 0x80
    before = np.concatenate(([0], np.cumsum(is_first, dtype=np.int64)))
    codes = np.frombuffer(raw.decode().encode("utf-32-le"), np.uint32)
    return codes, np.minimum(codes, 255).astype(np.uint8), before[offsets - offsets[0]]


def _compiled_codes(library: Any, raw: bytes, offsets: npt.NDArray[np.int32]) -> tuple[U32, U8, I64]:
    codes, narrow = np.empty(len(raw), np.uint32), np.empty(len(raw), np.uint8)
    starts, data = np.empty(len(offsets), np.int64), np.frombuffer(raw, np.uint8)
    where = (native.address(data), native.address(offsets), ctypes.c_int64(len(offsets) - 1))
    library.bs_codes.restype = ctypes.c_int64
    count = library.bs_codes(*where, *(native.address(found) for found in (codes, narrow, starts)))
    return codes[:count], narrow[:count], starts


@lru_cache(maxsize=4)
def _decodes(library: Any) -> bool:
    """Whether the compiled function decodes as Python does."""
    texts = ["", "a\u00e9\u07ff", "\u0800\uffff\ud7ff", "\U00010000z\U0010ffff", "", "\x00\x7f\x80\xfe\xff\u0100"]
    offsets = np.cumsum([7, *(len(text.encode()) for text in texts)], dtype=np.int32)
    raw = "".join(texts).encode()
    ours, python = _compiled_codes(library, raw, offsets), _decoded(raw, offsets)
    return all(np.array_equal(ours[part], python[part]) for part in (0, 1, 2))


@dataclass(frozen=True, slots=True)
class _Known:
    """The code points of a text column as it was, and the rows that mappers have rewritten since."""

    column: Any
    codes: Codes
    rewritten: I64


_last: list[_Known] = []
_MOST_REWRITTEN = 0.5


def codes_of(column: Any) -> Codes:
    """Code points of a text column; those of the last column asked for are kept, as filters in a row share it."""
    known = _known(column)
    if known is None or len(known.rewritten):
        known = _remember(column, Codes(column), np.zeros(0, np.int64))
    return known.codes


def _known(column: Any) -> _Known | None:
    return _last[0] if _last and _address(_last[0].column) == _address(column) else None


def _remember(column: Any, codes: Codes, rewritten: I64) -> _Known:
    _last[:] = [_Known(column, codes, rewritten)]  # the column is held, so that its addresses stay its own
    return _last[0]


def _address(column: Any) -> tuple[int, ...]:
    return (column.offset, len(column), *(0 if buffer is None else buffer.address for buffer in column.buffers()))


class CharTable:
    """A small number for each character, looked up for whole batches.

    Args:
        of: value, 0 to 254, of one character; asked once per character that occurs.

    >>> letters = CharTable(str.isalpha)
    >>> letters.look_up(Codes(pa.array(["a1", "é"]))).tolist()
    [1, 0, 1]
    """

    def __init__(self, of: Callable[[str], int]) -> None:
        self._of = of
        self._bytes = bytes(int(of(chr(code))) for code in range(256))
        self._wide: U8 | None = None

    def look_up(self, codes: Codes) -> U8:
        """[C] the value of each character."""
        values = np.frombuffer(bytearray(codes.narrow).translate(self._bytes), np.uint8)
        if len(codes.wide):
            values[codes.wide] = self._look_up_wide(codes.codes[codes.wide])
        return values

    def _look_up_wide(self, found: U32) -> U8:
        if self._wide is None:
            self._wide = np.full(sys.maxunicode + 1, _UNKNOWN, np.uint8)
        values = self._wide[found]
        unknown = values == _UNKNOWN
        if unknown.any():
            asked = np.zeros(sys.maxunicode + 1, bool)  # many texts share few characters: faster than sorting them
            asked[found[unknown]] = True
            fresh = np.flatnonzero(asked)
            answers = map(int, map(self._of, map(chr, fresh.tolist())))
            self._wide[fresh] = np.fromiter(answers, np.uint8, len(fresh))
            values = self._wide[found]
        return values


class CodeMap:
    """Another character for each character, e.g. its lower case, looked up for whole batches."""

    def __init__(self, of: Callable[[str], str]) -> None:
        self._of = of
        self._first = np.array([ord(of(chr(code))) for code in range(256)], np.uint32)

    def look_up(self, found: U32) -> U32:
        """[K] the code point of each character's counterpart."""
        values = self._first[np.minimum(found, 255)]
        wide = np.flatnonzero(found > 254)
        if len(wide):
            known, inverse = np.unique(found[wide], return_inverse=True)
            values[wide] = np.array([ord(self._of(chr(code))) for code in known.tolist()], np.uint32)[inverse]
        return values


def gram_hashes(values: npt.NDArray[Any], n: int) -> U32:
    """[len - n + 1] a 32-bit hash of each run of n values; equal runs have equal hashes, different ones rarely.

    A run's hash is the sum of ``value[j] * f^(n - 1 - j)`` modulo 2^32, built from runs of half the length.
    """
    single = values.astype(np.uint32)
    if n == 1:
        return single
    parts: list[tuple[int, U32]] = []
    length, current = 1, single
    powers = {1: np.uint32(_FACTOR)}
    while True:
        if n & length:
            parts.append((length, current))
        if length * 2 > n:
            break
        current = current[: len(current) - length] * powers[length] + current[length:]
        powers[length * 2] = np.uint32(int(powers[length]) ** 2 & 0xFFFFFFFF)
        length *= 2
    count = max(0, len(values) - n + 1)
    out, at = np.zeros(count, np.uint32), 0
    for length, hashes in reversed(parts):
        out *= powers[length]
        out += hashes[at : at + count]
        at += length
    return out


@lru_cache(maxsize=8)
def _weights(count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    factor = 0x9E3779B97F4A7C15  # odd; 2^64 over the golden ratio
    inverse = pow(factor, -1, 1 << 64)
    up = np.full(count, factor, np.uint64)
    down = np.full(count, inverse, np.uint64)
    up[0] = down[0] = 1
    return np.cumprod(up), np.cumprod(down)


def span_hashes(values: npt.NDArray[Any], starts: I64, stops: I64) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each span of values; equal spans have equal hashes wherever they stand."""
    size = 1 << max(10, len(values).bit_length())
    up, down = _weights(size)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values.astype(np.uint64) * up[: len(values)], out=sums[1:])
    return (sums[stops] - sums[starts]) * down[starts]


def rows_that_repeat(rows: npt.NDArray[Any], hashes: npt.NDArray[Any]) -> I64:
    """The rows in which a hash occurs twice, each once and in order.

    Args:
        rows: [K] row of each hash, below 2^32 - 1, in ascending order. hashes: [K] 32-bit hashes.
    """
    count = int(rows[-1]) + 1 if len(rows) else 0
    library = native.library(count)
    if library is not None and _agrees(library):
        return _compiled_repeats(library, rows, hashes)
    return _sorted_repeats(rows, hashes)


def _sorted_repeats(rows: npt.NDArray[Any], hashes: npt.NDArray[Any]) -> I64:
    keys = rows.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= hashes
    keys.sort()
    return np.unique(keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)).astype(np.int64)


def _compiled_repeats(library: Any, rows: npt.NDArray[Any], hashes: npt.NDArray[Any]) -> I64:
    rows, hashes = np.ascontiguousarray(rows, np.uint32), np.ascontiguousarray(hashes, np.uint32)
    found = np.zeros(int(rows[-1]) + 1 if len(rows) else 0, np.uint8)
    where = (native.address(hashes), native.address(rows), ctypes.c_int64(len(rows)), native.address(found))
    if library.bs_repeats(*where):
        raise MemoryError
    return np.flatnonzero(found)


@lru_cache(maxsize=4)
def _agrees(library: Any) -> bool:
    """Whether the compiled function says what numpy says."""
    draw = np.random.default_rng(3)
    rows = np.sort(draw.integers(0, 300, 5000)).astype(np.uint32)
    for most in (20, 200, 2**32):
        hashes = draw.integers(0, most, 5000).astype(np.uint32)
        if not np.array_equal(_compiled_repeats(library, rows, hashes), _sorted_repeats(rows, hashes)):
            return False
    return True


def replace_rows(batch: Batch, rows: npt.NDArray[Any], rewrite: Callable[[str], str]) -> tuple[Batch, I64]:
    """The batch with the texts of some rows rewritten, and which of them are new; the other texts are not touched."""
    column = batch.column(TEXT)
    texts = take(column, rows).to_pylist() if len(rows) else []
    fresh = [rewrite(text) for text in texts]
    changed = np.fromiter((a != b for a, b in zip(texts, fresh, strict=True)), bool, len(texts))
    if not changed.any():
        return batch, np.zeros(0, np.int64)
    mask = np.zeros(len(column), bool)
    mask[rows[changed]] = True
    new = pa.array([text for text, is_new in zip(fresh, changed.tolist(), strict=True) if is_new], pa.string())
    return with_column(batch, TEXT, call("replace_with_mask", column, array(mask), new)), np.asarray(rows[changed])


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectiveTextMapper(TextMapper):
    """A text mapper that knows which texts it leaves as they are, and rewrites only the others."""

    def apply(self, batch: Batch, ctx: Any) -> Batch:
        """Texts at :meth:`candidates` rewritten.

        A mapper after another looks at the code points that the first one saw, and at those of the rows rewritten
        since; most texts are taken apart once for all mappers in a row.
        """
        column = batch.column(TEXT)
        known = _known(column) or _remember(column, Codes(column), np.zeros(0, np.int64))
        rows = self.candidates(known.codes)
        if len(known.rewritten):
            again = self.candidates(Codes(take(column, known.rewritten)))
            rows = np.union1d(np.setdiff1d(rows, known.rewritten, assume_unique=True), known.rewritten[again])
        out, new = replace_rows(batch, rows, self.rewrite)
        if len(new):
            rewritten = np.union1d(known.rewritten, new)
            if len(rewritten) <= _MOST_REWRITTEN * len(column):
                _remember(out.column(TEXT), known.codes, rewritten)
        return out

    def candidates(self, codes: Codes) -> I64:
        """Rows, each once and in order, whose text :meth:`rewrite` may change; it must leave all others unchanged.

        Whether a row is named may depend on nothing but its own text, apart from rows named in vain.
        """
        raise NotImplementedError


def neighbours(left: Mask, right: Mask) -> I64:
    """Positions i where ``left[i]`` and ``right[i + 1]``."""
    return np.flatnonzero(left[:-1] & right[1:])
