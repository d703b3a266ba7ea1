"""Cut long texts into rows of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, Generator, Made, Track, with_column


@dataclass(frozen=True, kw_only=True, slots=True)
class TextChunkMapper(Generator):
    """Each text becomes its chunks, as in Data-Juicer; blank chunks are left out, except the last of a long text.

    Args:
        max_len: most characters of a chunk; None cuts at every match of the pattern and nowhere else.
        split_pattern: regular expression; a chunk ends at its last match within ``max_len``, or is cut where it must.
        overlap_len: characters that a chunk repeats from the one before when it was cut where it must.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)
    track: ClassVar[Track] = "open"

    max_len: int | None = None
    split_pattern: str | None = r"\n\n"
    overlap_len: int = 0

    def check(self) -> None:
        """There must be a way to cut, and an overlap must leave room to go on."""
        if self.max_len is None and self.split_pattern is None:
            raise ValueError("give max_len or split_pattern")
        if self.max_len is not None and self.max_len < 1:
            raise ValueError("max_len must be at least 1")
        if self.overlap_len < 0 or (self.max_len is not None and self.overlap_len >= self.max_len):
            raise ValueError("overlap_len must be at least 0 and below max_len")
        try:
            re.compile(self.split_pattern or "")
        except re.error as error:
            raise ValueError(f"split_pattern is not a regular expression: {error}") from error

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """The chunks of each text; the first keeps the row's key."""
        chunks = [self.chunks(text) for text in batch.column(TEXT).to_pylist()]
        source = np.repeat(np.arange(len(chunks)), [len(found) for found in chunks])
        is_child = np.ones(len(source), bool)
        is_child[np.unique(source, return_index=True)[1]] = False
        made = batch.take(pa.array(source, pa.int64()))
        texts = pa.array([chunk for found in chunks for chunk in found], pa.string())
        return Made(with_column(made, TEXT, texts), source.astype(np.int64), is_child)

    def chunks(self, text: str) -> list[str]:
        """The pieces of one text.

        >>> TextChunkMapper(max_len=9, split_pattern=" ").chunks("one two three")
        ['one two', 'three']
        """
        if self.max_len is None:
            return [piece for piece in re.split(self.split_pattern or "", text) if piece and piece.strip()]
        found, start = [], 0
        while len(text) - start > self.max_len:
            window = text[start : start + self.max_len]
            ends = [] if self.split_pattern is None else list(re.finditer(self.split_pattern, window))
            if ends and ends[-1].end() > 0:
                piece, start = window[: ends[-1].start()], start + ends[-1].end()
            else:
                piece, start = window, start + self.max_len - self.overlap_len
            if piece.strip():
                found.append(piece)
        return [*found, text[start:]]
