"""Rewrite only the captions that are bad; good ones stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import ChunkPair, caption_pairs
from bettersynth.ops._quotes import QUOTED_WORDS, quoted_likelihood
from bettersynth.ops.base import IMAGES, STATS, TEXT, Batch, Mapper, stat_values, with_column


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """Values that call for a new caption: ``below`` or ``above`` a number."""

    below: float | None = None
    above: float | None = None

    def hits(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which values lie outside; missing values do not."""
        bad = np.zeros(len(values), bool)
        if self.below is not None:
            bad |= values < self.below
        if self.above is not None:
            bad |= values > self.above
        return bad


@dataclass(frozen=True, kw_only=True, slots=True)
class RecaptionMapper(Mapper):
    """New captions for rows with one picture where any of the ``when`` conditions holds (ours).

    Mixing raw and new captions beats replacing everything: raw captions keep names and details a captioner cannot
    know. Stats computed before describe the old caption; score again after this step to select by the new one.

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner.
        when: stat name to bound, e.g. ``{image_text_similarity: {below: 0.2}, image_caption_nll: {above: 3}}``;
            empty: every row.
        hf_clip: folder of a CLIP model; when given, a new caption is taken only if it fits at least ``margin`` better.
        margin: how much better, in units of image_text_similarity.
        min_quoted_words: a new caption is taken only if the captioner is so sure of the words it quotes from the
            picture, 0 to 1 (as ``stats.quoted_words``; captions that quote nothing pass).
        max_new_tokens: longest caption, in tokens.
        prompt: text the caption starts from.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = (TEXT, "stats.is_recaptioned")
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_img2seq", "hf_clip")

    hf_img2seq: str = "Salesforce/blip2-opt-2.7b"
    when: dict[str, Bound] = field(default_factory=dict)
    hf_clip: str | None = None
    margin: float = 0.0
    min_quoted_words: float | None = None
    max_new_tokens: int = 64
    prompt: str = ""

    def needs(self) -> tuple[str, ...]:
        """Text, pictures and the stats named in ``when``."""
        return (*self.reads, *(STATS + name for name in self.when))

    def check(self) -> None:
        """Every condition needs a bound."""
        for name, bound in self.when.items():
            if bound.below is None and bound.above is None:
                raise ValueError(f"when.{name} needs below: or above:")

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """New texts where the old ones are bad.

        ``stats.is_recaptioned`` is 1 where the text is new, 0 where the old one was good, and -1 where it was bad but
        nothing better was found, so that a later ``stat_range_filter`` can drop those.
        """
        bad = np.full(batch.num_rows, not self.when)
        for name, bound in self.when.items():
            bad |= bound.hits(stat_values(batch.column(STATS + name)))
        rows = np.flatnonzero(bad)
        texts = batch.column(TEXT).to_pylist()
        changed = np.where(bad, -1, 0)
        # Only the bad rows' pictures are opened.
        pairs = caption_pairs(batch.take(pa.array(rows)), ctx)
        for pair, caption in zip(pairs, self._captions(pairs, ctx), strict=True):
            row = int(rows[pair.row])
            text = ctx.tokens.with_caption(texts[row], caption) if caption else None
            if text is not None:
                texts[row] = text
                changed[row] = 1
        out = with_column(batch, TEXT, pa.array(texts, pa.string()))
        return with_column(out, "stats.is_recaptioned", pa.array(changed.astype(np.int64)))

    def _captions(self, pairs: list[ChunkPair], ctx: OpContext) -> list[str]:
        """A caption per pair; empty where the old one is to stay."""
        if not pairs:
            return []
        images = [pair.images[0] for pair in pairs]
        captioner = ctx.captioner(self.hf_img2seq)
        captions = captioner.caption(images, max_new_tokens=self.max_new_tokens, prompt=self.prompt)
        if self.min_quoted_words is not None:
            judged = captioner.nll(images, captions)
            for place, (caption, nll) in enumerate(zip(captions, judged, strict=True)):
                sure = quoted_likelihood(caption, nll, QUOTED_WORDS)
                captions[place] = "" if sure is not None and sure < self.min_quoted_words else caption
        if self.hf_clip is None:
            return captions
        scorer = ctx.scorer(self.hf_clip)
        old = scorer.score(images, [pair.text for pair in pairs])
        better = scorer.score(images, captions) >= old + self.margin
        return [caption if wins else "" for caption, wins in zip(captions, better, strict=True)]
