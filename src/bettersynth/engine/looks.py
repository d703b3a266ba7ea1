"""What a first look at a data set shows beyond counts: scripts, near duplicates, outliers, thresholds to begin with."""

from __future__ import annotations

import heapq
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT
from bettersynth.ops.dedup.document_minhash_deduplicator import DocumentMinhashDeduplicator

_AT_ONCE = 2048
_SHOWN = 4
_SHARES = (0.01, 0.99)
_CAPTION = 200


@dataclass(frozen=True, order=True, slots=True)
class Outlier:
    """A row with an unusual value."""

    value: float
    id: str
    image: str
    caption: str


class Looks:
    """Gathers while rows are read. Memory: one hash per band and row, and a handful of rows per measure."""

    def __init__(self) -> None:
        self.scripts: Counter[str] = Counter()
        self.lengths: list[int] = []
        self._ends: dict[str, tuple[list[Outlier], list[Outlier]]] = {}
        self._names: list[str] = []
        self._waiting: list[str] = []
        self._bands: list[Any] = []
        self._minhash = DocumentMinhashDeduplicator(keep_short=True)

    def add_text(self, text: str, caption: str, name: str) -> None:
        """Take in a row's text, its caption, which is the text without special tokens, and its id."""
        self._names.append(name)
        self.lengths.append(len(text))
        self.scripts[script_of(caption)] += 1
        self._waiting.append(caption)
        if len(self._waiting) >= _AT_ONCE:
            self._hash()

    def add_value(self, name: str, value: float, row: tuple[str, str, str]) -> None:
        """Remember a row (its id, first picture and caption) if its value is among the smallest or largest."""
        low, high = self._ends.setdefault(name, ([], []))
        for heap, sign in ((low, -1.0), (high, 1.0)):
            if len(heap) < _SHOWN or sign * value > heap[0].value:
                item = Outlier(sign * value, row[0], row[1], row[2][:_CAPTION])
                heapq.heappush(heap, item) if len(heap) < _SHOWN else heapq.heapreplace(heap, item)

    def outliers(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Measure to its ``smallest`` and ``largest`` rows, the most unusual first."""
        found = {}
        for name, (low, high) in self._ends.items():
            small = [Outlier(-item.value, item.id, item.image, item.caption) for item in sorted(low, reverse=True)]
            large = sorted(high, reverse=True)
            found[name] = {"smallest": [asdict(row) for row in small], "largest": [asdict(row) for row in large]}
        return found

    def near_duplicates(self) -> tuple[int, list[str]]:
        """Rows whose caption nearly equals an earlier one's (MinHash, similarity 0.7): how many, and a few ids."""
        self._hash()
        if not self._bands:
            return 0, []
        partials = pa.table({"bands": pa.concat_arrays(self._bands)})
        found = np.flatnonzero(self._minhash.reduce(partials, OpContext()).copies == 0)
        return len(found), [self._names[row] for row in found[:_SHOWN]]

    def _hash(self) -> None:
        if self._waiting:
            batch = pa.record_batch([pa.array(self._waiting, pa.string())], names=[TEXT])
            self._bands.append(self._minhash.partial(batch, OpContext())["bands"])
            self._waiting.clear()


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    return unicodedata.name(character, "?").partition(" ")[0].lower() if character.isalpha() else ""


def script_of(text: str) -> str:
    """The script that most letters of a text are written in, by their Unicode names; ``none`` without letters.

    >>> script_of("two dogs"), script_of("两只狗 a"), script_of("12")
    ('latin', 'cjk', 'none')
    """
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else "none"
    found = Counter(map(_script, text))
    found.pop("", None)
    return found.most_common(1)[0][0] if found else "none"


def suggestions(arrays: Mapping[str, Any], lengths: Sequence[int]) -> list[str]:
    """Recipe lines whose bounds lie at the 1st and 99th percentile of what was measured."""
    ends = {name: np.quantile(values, _SHARES) for name, values in arrays.items() if len(values)}
    lines = []
    if len(lengths):
        low, high = np.quantile(np.asarray(lengths), _SHARES)
        lines.append(f"- text_length_filter: {{min_len: {int(low)}, max_len: {int(np.ceil(high))}}}")
    if "special_char_ratio" in ends:
        lines.append(f"- special_characters_filter: {{max_ratio: {ends['special_char_ratio'][1]:.3f}}}")
    if "image_width" in ends:
        sides = f"min_width: {int(ends['image_width'][0])}, min_height: {int(ends['image_height'][0])}"
        lines.append(f"- image_shape_filter: {{{sides}}}")
        low, high = ends["aspect_ratio"]
        lines.append(f"- image_aspect_ratio_filter: {{min_ratio: {low:.3f}, max_ratio: {high:.3f}}}")
        low, high = ends["image_kib"]
        lines.append(f"- image_size_filter: {{min_size: {int(low)}KB, max_size: {int(np.ceil(high))}KB}}")
    return lines
