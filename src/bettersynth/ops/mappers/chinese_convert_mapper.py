"""Convert between simplified and traditional Chinese characters, their regional forms, and Japanese ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, TextMapper, with_column

Mode = Literal[
    "s2t", "t2s", "s2tw", "tw2s", "s2hk", "hk2s", "s2twp", "tw2sp", "t2tw", "tw2t", "hk2t", "t2hk", "t2jp", "jp2t"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChineseConvertMapper(TextMapper):
    """By OpenCC, as in Data-Juicer; needs the ``chinese`` extra.

    Args:
        mode: from and to: ``s`` simplified, ``t`` traditional, ``tw`` Taiwan, ``hk`` Hong Kong, ``jp`` Japanese; a
            final ``p`` also converts the words that differ between the mainland and Taiwan.
        config: an OpenCC configuration file of your own (``.json``), in the place of ``mode``.
    """

    models: ClassVar[tuple[str, ...]] = ("config",)

    mode: Mode = "s2t"
    config: str | None = None

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """The texts converted."""
        convert = ctx.converter(self.config or self.mode).convert
        texts = batch.column(TEXT).to_pylist()
        return with_column(batch, TEXT, pa.array([convert(text) for text in texts], pa.string()))
