"""Keep rows whose pictures show the things that their text names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bettersynth.ops._context import OpContext
from bettersynth.ops._images import PictureFilter, ReduceMode, chunk_pairs, reduce_chunks
from bettersynth.ops._phrases import noun_phrases
from bettersynth.ops.base import IMAGES, TEXT, Batch, Stats

if TYPE_CHECKING:
    from bettersynth.infer.protocols import Box


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseGroundingRecallFilter(PictureFilter):
    """Share of a chunk's noun phrases that an open-vocabulary detector finds in its pictures, one value per chunk.

    As in Data-Juicer, but for two things: phrases come from a rule without a tagger (see ``_phrases``), and a chunk
    without phrases (value 1) does not shift the pictures of the chunks after it.

    Args:
        hf_owlvit: folder of an OWL-ViT.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        min_recall: smallest share; None to score without dropping.
        max_recall: largest share.
        horizontal_flip, vertical_flip: mirror the pictures first.
        reduce_mode: how the values of a chunk's pictures become one.
        iou_thr: a place that overlaps a found one more than this (intersection over union) is the same thing.
        large_area_ratio_thr: places above this share of the picture are ignored.
        conf_thr: places below this score are ignored.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = ("stats.phrase_grounding_recall",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_owlvit",)
    stat: ClassVar[str] = "phrase_grounding_recall"
    bounds: ClassVar[tuple[str, str]] = ("min_recall", "max_recall")
    keep_params: ClassVar[tuple[str, ...]] = (*PictureFilter.keep_params, "min_recall", "max_recall")

    hf_owlvit: str = "google/owlvit-base-patch32"
    trust_remote_code: bool = False
    min_recall: float | None = 0.1
    max_recall: float | None = 1.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    reduce_mode: ReduceMode = "avg"
    iou_thr: float = 0.5
    large_area_ratio_thr: float = 0.95
    conf_thr: float = 0.0

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``phrase_grounding_recall``: lists of shares, one per chunk with pictures, to five decimals."""
        pairs = chunk_pairs(batch, ctx, horizontal_flip=self.horizontal_flip, vertical_flip=self.vertical_flip)
        values = []
        for pair in pairs:
            phrases = noun_phrases(pair.text)
            for image in pair.images:
                if not phrases:
                    values.append(1.0)
                    continue
                boxes = ctx.grounder(self.hf_owlvit).ground(image, phrases, len(phrases))
                values.append(self.recall(boxes, len(phrases), image.width * image.height))
        return {self.stat: reduce_chunks(pairs, values, self.reduce_mode, batch.num_rows)}

    def recall(self, boxes: Sequence[Box], count: int, area: float) -> float:
        """Found phrases / phrases, going down the boxes by score; one box a phrase, no box twice, none too large."""
        hits: dict[int, Box] = {}
        for box in boxes:
            if box.score < self.conf_thr or box.phrase in hits:
                continue
            if (box.right - box.left) * (box.bottom - box.top) > self.large_area_ratio_thr * area:
                continue
            if any(overlap(box, other) > self.iou_thr for other in hits.values()):
                continue
            hits[box.phrase] = box
        return len(hits) / count


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    both = width * height
    union = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top) - both
    return both / union if union else 0.0
