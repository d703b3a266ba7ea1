"""Take lines that many rows share out of all of them."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, Deduplicator, Stats, Verdict, with_column

_NON_CHARACTER = re.compile(rf"\s+|\d+|[{re.escape(string.punctuation)}]+")
_BRACKETS = frozenset("(){}[];")
_TAG = re.compile(r"</?[a-z][^>]*>?", re.IGNORECASE)
_ENVIRONMENTS = ("\\begin{", "\\end{")
_FIELD = "__shared_lines__"
_EXEMPT = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentLineDeduplicator(Deduplicator):
    """Boilerplate (copyright notices, menus): lines that stand in more rows than allowed go from every row.

    As in Data-Juicer, but that a line with a special token never goes, because a picture would lose its place. No row
    is dropped; a text may become empty, which a length filter after this step finds. Lines are compared by a 64-bit
    hash.

    Args:
        frequency_threshold: a line goes when it stands in more rows than this.
        lowercase: compare without case.
        ignore_special_character: compare without white space, digits and ASCII punctuation.
        min_line_length: shorter lines (without outer white space) stay.
        skip_brackets: lines of brackets and semicolons alone stay.
        skip_markdown_headers: lines that begin with ``#`` stay.
        skip_latex_env: lines that begin or end a LaTeX environment stay.
        skip_html_tags: lines of one HTML tag alone stay.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = (TEXT, "stats.removed_lines")
    keep_params: ClassVar[tuple[str, ...]] = ("frequency_threshold",)

    frequency_threshold: int = 6
    lowercase: bool = False
    ignore_special_character: bool = False
    min_line_length: int = 2
    skip_brackets: bool = True
    skip_markdown_headers: bool = True
    skip_latex_env: bool = True
    skip_html_tags: bool = True

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """8 bytes a line; 0 for lines that stay in any case."""
        token = ctx.tokens.pattern()
        rows = [
            [_EXEMPT if token.search(line) else self._code(line) for line in text.split("\n")]
            for text in batch.column(TEXT).to_pylist()
        ]
        return {"lines": pa.array(rows, pa.list_(pa.uint64()))}

    def _code(self, line: str) -> int:
        if self._stays(line.strip()):
            return _EXEMPT
        line = line.lower() if self.lowercase else line
        line = _NON_CHARACTER.sub("", line) if self.ignore_special_character else line
        return xxhash.xxh3_64_intdigest(line.strip().encode("utf-8", "surrogatepass")) or 1

    def _stays(self, line: str) -> bool:
        return (
            len(line) < self.min_line_length
            or (self.skip_brackets and _BRACKETS.issuperset(line))
            or (self.skip_markdown_headers and line.startswith("#"))
            or (self.skip_latex_env and line.startswith(_ENVIRONMENTS))
            or (self.skip_html_tags and _TAG.fullmatch(line) is not None)
        )

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """For each row the numbers of the lines that go."""
        column = partials.column("lines").combine_chunks()
        total = len(column)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        codes = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.uint64)
        rows = np.repeat(np.arange(total), lengths)
        gone = np.zeros(len(codes), bool)
        shared: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        if total > 1:
            shared = _in_many_rows(codes, rows, self.frequency_threshold)
            gone = np.isin(codes, shared)
        numbers = (np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths))[gone]
        counts = np.bincount(rows[gone], minlength=total)
        ends = pa.array(np.r_[0, np.cumsum(counts)], pa.int32())
        lines: Any = pa.ListArray.from_arrays(ends, pa.array(numbers, pa.int32()))
        facts = {"lines found in too many rows": len(shared), "lines taken out": int(gone.sum())}
        return Verdict(
            np.ones(total, np.int64), [""] * total, {"removed_lines": pa.array(counts)}, facts, {_FIELD: lines}
        )

    def finish(self, batch: Batch, ctx: OpContext) -> Batch:
        """The texts without those lines."""
        found = batch.column(_FIELD).to_pylist()
        texts = batch.column(TEXT).to_pylist()
        for row, numbers in enumerate(found):
            if numbers:
                gone = set(numbers)
                kept = [line for number, line in enumerate(texts[row].split("\n")) if number not in gone]
                texts[row] = "\n".join(kept)
        batch = batch.select([name for name in batch.schema.names if name != _FIELD])
        return with_column(batch, TEXT, pa.array(texts, pa.string()))


def _in_many_rows(codes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.uint64]:
    """The codes that stand in more than ``most`` different rows."""
    order = np.argsort(codes, kind="stable")  # rows of one code stay in ascending order
    codes, rows = codes[order], rows[order]
    first = np.ones(len(codes), bool)
    first[1:] = (codes[1:] != codes[:-1]) | (rows[1:] != rows[:-1])
    found, counts = np.unique(codes[first], return_counts=True)
    return np.asarray(found[(counts > most) & (found != _EXEMPT)])
