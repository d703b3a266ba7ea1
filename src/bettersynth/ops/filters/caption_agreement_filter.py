"""Keep rows whose caption says what a captioner says of the same picture."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import caption_pairs
from bettersynth.ops._phrases import noun_phrases
from bettersynth.ops.base import IMAGES, TEXT, Batch, RangeFilter, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionAgreementFilter(RangeFilter):
    """Agreement of the row's caption with one that a model writes for the same picture, 0 to 1 (ours).

    Two witnesses that name the same things are rarely both wrong. Without ``hf_clip`` the agreement is the F1 of the
    words in noun phrases; with it, the cosine of the two captions' CLIP vectors, which forgives other words for the
    same. Rows without exactly one picture have no value and stay.

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner.
        hf_clip: folder of a CLIP model that compares the captions; None: by words.
        min_score: smallest agreement; None to score without dropping.
        max_score: largest agreement.
        max_new_tokens: length of the written caption.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.caption_agreement",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_img2seq", "hf_clip")
    stat: ClassVar[str] = "caption_agreement"
    bounds: ClassVar[tuple[str, str]] = ("min_score", "max_score")
    keep_params: ClassVar[tuple[str, ...]] = (*RangeFilter.keep_params, "min_score", "max_score")

    hf_img2seq: str = "Salesforce/blip2-opt-2.7b"
    hf_clip: str | None = None
    min_score: float | None = 0.1
    max_score: float | None = None
    max_new_tokens: int = 64

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``caption_agreement`` to five decimals; null where there is nothing to judge."""
        values: list[float | None] = [None] * batch.num_rows
        pairs = [pair for pair in caption_pairs(batch, ctx) if pair.text]
        if pairs:
            images = [pair.images[0] for pair in pairs]
            written = ctx.captioner(self.hf_img2seq).caption(images, max_new_tokens=self.max_new_tokens)
            given = [pair.text for pair in pairs]
            if self.hf_clip is None:
                found = [word_agreement(a, b) for a, b in zip(given, written, strict=True)]
            else:
                scorer = ctx.scorer(self.hf_clip)
                found = (
                    (np.asarray(scorer.embed_texts(given)) * np.asarray(scorer.embed_texts(written))).sum(1).tolist()
                )
            for pair, value in zip(pairs, found, strict=True):
                values[pair.row] = round(float(value), 5)
        return {self.stat: pa.array(values, pa.float64())}


def word_agreement(a: str, b: str) -> float:
    """F1 of the words in the noun phrases of two texts; plural endings are ignored.

    >>> word_agreement("a red dog on the grass", "two red dogs")
    0.6666666666666666
    """
    left, right = (Counter(_stem(word) for word in _words(text)) for text in (a, b))
    total = sum(left.values()) + sum(right.values())
    return 2 * sum((left & right).values()) / total if total else 0.0


def _words(text: str) -> list[str]:
    return [word for phrase in noun_phrases(text) for word in re.findall(r"\w+", phrase)]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
