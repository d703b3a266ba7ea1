"""Tag pictures with the words of a list that fit them best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, Batch, Mapper, with_column

_KIND = pa.list_(pa.list_(pa.string()))
COMMON_TAGS = (
    *("person", "man", "woman", "child", "crowd", "face", "dog", "cat", "bird", "horse", "cow", "elephant", "giraffe"),
    *("car", "bus", "truck", "train", "motorcycle", "bicycle", "airplane", "boat", "road", "street", "bridge"),
    *("building", "house", "tower", "church", "kitchen", "bedroom", "bathroom", "office", "restaurant", "shop"),
    *("table", "chair", "sofa", "bed", "window", "door", "lamp", "clock", "book", "phone", "computer", "television"),
    *("food", "pizza", "cake", "fruit", "vegetable", "drink", "cup", "plate", "bottle", "flower", "tree", "grass"),
    *("beach", "sea", "river", "lake", "mountain", "forest", "field", "snow", "sky", "sunset", "night", "city"),
    *("sport", "ball", "skateboard", "surfboard", "toy", "umbrella", "bag", "hat", "clothing", "jewelry"),
    *("sign", "text", "document", "chart", "map", "logo", "screenshot", "drawing", "painting", "cartoon", "statue"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTaggingMapper(Mapper):
    """The best tags of each picture, best first, by CLIP's choice among a list of words.

    Data-Juicer asks RAM++, which needs a package from a source repository; any CLIP folder serves here, and the list is
    yours. The tags stand in a field of the row, one list per picture.

    Args:
        hf_clip: folder of a CLIP model.
        tag_field_name: field for the tags.
        tags: the words to choose from.
        top_k: most tags per picture.
        min_share: smallest softmax share among all words that a tag needs, 0 to 1.
        prompt: sentence around a word.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    writes: ClassVar[tuple[str, ...]] = ("image_tags",)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_clip",)

    hf_clip: str = "openai/clip-vit-base-patch32"
    tag_field_name: str = "image_tags"
    tags: tuple[str, ...] = COMMON_TAGS
    top_k: int = 5
    min_share: float = 0.05
    prompt: str = "a photo of a {tag}"

    def check(self) -> None:
        """Different words, and a field of its own."""
        if not self.tags or len(set(self.tags)) != len(self.tags) or self.top_k < 1:
            raise ValueError("tags must be different words, at least one; top_k at least 1")
        if not self.tag_field_name or self.tag_field_name in ("id", "text", "images"):
            raise ValueError(f"cannot write tags into the field '{self.tag_field_name}'")
        if "{tag}" not in self.prompt:
            raise ValueError("prompt needs {tag}")

    def adds(self) -> tuple[str, ...]:
        """The field asked for."""
        return (self.tag_field_name,)

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """The field with one list of tags per picture."""
        rows = ctx.image_paths(batch)
        distinct = list(dict.fromkeys(path for paths in rows for path in paths))
        found: dict[object, list[str]] = {}
        if distinct:
            scorer = ctx.scorer(self.hf_clip)
            words_TD = np.asarray(scorer.embed_texts([self.prompt.replace("{tag}", tag) for tag in self.tags]))
            images_ND = np.asarray(scorer.embed_images([ctx.image(path) for path in distinct]))
            # CLIP's usual scale of 100; rounded, so that equal words keep the list's order on every machine.
            logits_NT = np.round(images_ND @ words_TD.T * 100, 3)
            shares_NT = np.exp(logits_NT - logits_NT.max(1, keepdims=True))
            shares_NT /= shares_NT.sum(1, keepdims=True)
            for path, shares in zip(distinct, shares_NT, strict=True):
                order = np.argsort(-shares, kind="stable")[: self.top_k]
                found[path] = [self.tags[n] for n in order if shares[n] >= self.min_share]
        values = [[found[path] for path in paths] for paths in rows]
        return with_column(batch, self.tag_field_name, pa.array(values, _KIND))
