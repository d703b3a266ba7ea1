"""Drop rows whose text nearly equals an earlier one (MinHash)."""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._minhash import bands_of_texts, bands_of_windows, best_bands, compiled, components, lowered
from bettersynth.ops.base import TEXT, Batch, Deduplicator, Stats, Verdict, keep_first


@lru_cache(maxsize=1)
def punctuation() -> re.Pattern[str]:
    found = (chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P"))
    return re.compile("[" + re.escape("".join(found)) + "]")


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentMinhashDeduplicator(Deduplicator):
    """Near duplicates by MinHash and banding; the first row of each cluster stays, as in Data-Juicer.

    Texts with fewer tokens than ``window_size`` have no window and all count as duplicates of each other there; with
    ``keep_short`` (ours) they are compared as a whole instead.

    Args:
        tokenization: ``space`` splits on spaces only, ``punctuation`` on each punctuation mark, ``character`` not.
        window_size: tokens per window.
        lowercase: compare without case.
        ignore_pattern: regular expression removed before comparing.
        num_permutations: hash functions.
        jaccard_threshold: similarity from which texts should meet; chooses the bands unless they are given.
        num_bands, num_rows_per_band: banding, both or none.
        keep_short: compare short texts as a whole.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)

    tokenization: Literal["space", "punctuation", "character"] = "space"
    window_size: int = 5
    lowercase: bool = True
    ignore_pattern: str | None = None
    num_permutations: int = 256
    jaccard_threshold: float = 0.7
    num_bands: int | None = None
    num_rows_per_band: int | None = None
    keep_short: bool = False

    def check(self) -> None:
        """Bands must fit the permutations, and the pattern must be one."""
        if self.window_size < 1 or self.num_permutations < 1:
            raise ValueError("window_size and num_permutations must be at least 1")
        if (
            self.num_bands
            and self.num_rows_per_band
            and self.num_bands * self.num_rows_per_band > self.num_permutations
        ):
            raise ValueError("num_bands x num_rows_per_band is more than num_permutations")
        try:
            re.compile(self.ignore_pattern or "")
        except re.error as error:
            raise ValueError(f"ignore_pattern is not a regular expression: {error}") from error

    def bands(self) -> tuple[int, int]:
        """(bands, rows per band)."""
        if self.num_bands and self.num_rows_per_band:
            return self.num_bands, self.num_rows_per_band
        return best_bands(self.jaccard_threshold, self.num_permutations)

    def windows(self, text: str) -> set[bytes]:
        """Overlapping windows of tokens, as UTF-8."""
        text = text.lower() if self.lowercase else text
        text = re.sub(self.ignore_pattern, "", text) if self.ignore_pattern else text
        n = self.window_size
        if self.tokenization == "character":
            found = {text[i : i + n] for i in range(len(text) - n + 1)}
        else:
            by_space = self.tokenization == "space"
            tokens = [t for t in text.split(" ") if t] if by_space else punctuation().split(text)
            found = {" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
        if not found and self.keep_short:
            found = {text}
        return {window.encode("utf-8", "surrogatepass") for window in found}

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """One 64-bit hash per band."""
        bands, rows = self.bands()
        column = batch.column(TEXT)
        library = compiled(len(column)) if self.tokenization != "punctuation" else None
        if library is None:
            windows = [self.windows(text) for text in column.to_pylist()]
            hashes = bands_of_windows(windows, self.num_permutations, bands, rows)
        else:
            hashes = self._compiled(library, column, (self.num_permutations, bands, rows))
        return {"bands": pa.FixedSizeListArray.from_arrays(pa.array(hashes.ravel()), bands)}

    def _compiled(self, library: Any, column: Any, shape: tuple[int, int, int]) -> Any:
        column = lowered(column) if self.lowercase else column
        if self.ignore_pattern:
            pattern = re.compile(self.ignore_pattern)
            column = pa.array([pattern.sub("", text) for text in column.to_pylist()], pa.string())
        found, windows = bands_of_texts(library, column, (self.tokenization == "space", self.window_size), shape)
        if self.keep_short:
            for row in np.flatnonzero(windows == 0).tolist():
                whole = {column[row].as_py().encode()}
                found[row] = bands_of_windows([whole], *shape)
        return found

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """First of each connected group."""
        column = partials.column("bands").combine_chunks()
        bands = np.asarray(column.flatten().to_numpy()).reshape(len(column), -1)
        return keep_first(components(bands), "nearly the same text as an earlier row")
