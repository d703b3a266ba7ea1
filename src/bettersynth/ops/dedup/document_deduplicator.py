"""Drop rows whose text has been seen before."""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, Deduplicator, Stats, Verdict, keep_first

_NON_CHARACTER = re.compile(rf"\s+|\d+|[{re.escape(string.punctuation)}]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentDeduplicator(Deduplicator):
    """Exact duplicates by MD5 of the text; the first row stays, as in Data-Juicer.

    Args:
        lowercase: compare without case.
        ignore_non_character: compare without white space, digits and ASCII punctuation.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)

    lowercase: bool = False
    ignore_non_character: bool = False

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """16 bytes a row."""
        return {"hash": pa.array([self.digest(text) for text in batch.column(TEXT).to_pylist()], pa.binary(16))}

    def digest(self, text: str) -> bytes:
        """MD5 of the compared form of a text."""
        text = text.lower() if self.lowercase else text
        text = _NON_CHARACTER.sub("", text) if self.ignore_non_character else text
        return hashlib.md5(text.strip().encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """First of each hash."""
        codes = partials.column("hash").combine_chunks().dictionary_encode().indices
        return keep_first(np.asarray(codes), "same text as an earlier row")
