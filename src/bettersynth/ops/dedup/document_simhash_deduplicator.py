"""Drop rows whose text nearly equals an earlier one (SimHash)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._minhash import join
from bettersynth.ops._simhash import md5_simhash, near_pairs
from bettersynth.ops.base import TEXT, Batch, Deduplicator, Stats, Verdict, keep_first
from bettersynth.ops.dedup.document_minhash_deduplicator import punctuation


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentSimhashDeduplicator(Deduplicator):
    """Near duplicates by SimHash: the first row of each group of hashes that differ in few bits stays.

    Texts with fewer tokens than ``window_size`` all have hash 0 and count as duplicates of each other, as in
    Data-Juicer.

    Args:
        tokenization: ``space`` splits on spaces only, ``punctuation`` on each punctuation mark, ``character`` not.
        window_size: tokens per window.
        lowercase: compare without case.
        ignore_pattern: regular expression removed before comparing.
        num_blocks: parts of the hash; more than ``hamming_distance``. It changes the speed, not the result.
        hamming_distance: most bits that may differ.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    keep_params: ClassVar[tuple[str, ...]] = ("num_blocks", "hamming_distance")

    tokenization: Literal["space", "punctuation", "character"] = "space"
    window_size: int = 6
    lowercase: bool = True
    ignore_pattern: str | None = None
    num_blocks: int = 6
    hamming_distance: int = 4

    def check(self) -> None:
        """Numbers must fit each other, and the pattern must be one."""
        if self.window_size < 1:
            raise ValueError("window_size must be at least 1")
        if not 0 <= self.hamming_distance < self.num_blocks <= 64:
            raise ValueError("0 <= hamming_distance < num_blocks <= 64 is needed")
        try:
            re.compile(self.ignore_pattern or "")
        except re.error as error:
            raise ValueError(f"ignore_pattern is not a regular expression: {error}") from error

    def windows(self, text: str) -> list[bytes]:
        """Overlapping windows of tokens, repeated ones too, as UTF-8."""
        text = text.lower() if self.lowercase else text
        text = re.sub(self.ignore_pattern, "", text) if self.ignore_pattern else text
        n = self.window_size
        if self.tokenization == "character":
            found = [text[i : i + n] for i in range(len(text) - n + 1)]
        else:
            by_space = self.tokenization == "space"
            tokens = [t for t in text.split(" ") if t] if by_space else punctuation().split(text)
            found = [" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        return [window.encode("utf-8", "surrogatepass") for window in found]

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """One hash a row."""
        hashes = [md5_simhash(self.windows(text)) for text in batch.column(TEXT).to_pylist()]
        return {"hash": pa.array(hashes, pa.uint64())}

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """First of each group of near hashes."""
        hashes, inverse = np.unique(partials.column("hash").to_numpy(), return_inverse=True)
        left, right = near_pairs(hashes.astype(np.uint64), self.hamming_distance, self.num_blocks)
        groups = join(len(hashes), left, right) if len(hashes) else np.zeros(0, np.int64)
        return keep_first(groups[inverse], "nearly the same text as an earlier row")
