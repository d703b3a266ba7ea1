"""Caption pictures with BLIP-2 or BLIP; the originals may stay beside the new rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from bettersynth.core.sample import RowKey
from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_values
from bettersynth.ops._images import ChunkPair, chunk_pairs
from bettersynth.ops._simhash import simhash
from bettersynth.ops.base import IMAGES, TEXT, Batch, Generator, Made, row_keys, with_column

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCaptioningMapper(Generator):
    """For each row with pictures: the original (if kept), then copies whose text is new captions, as in Data-Juicer.

    Copies carry the id of their source, so they pass the locked conversion. One caption is greedy; several are
    sampled with seeds that depend on the row alone (Data-Juicer always samples, unseeded). Rows without pictures
    stay as they are.

    Args:
        hf_img2seq: folder of a BLIP or BLIP-2 captioner.
        caption_num: captions drawn per picture.
        keep_candidate_mode: which of them make a row: one at random, the one most similar to the old text (simhash),
            or all, each its own row.
        keep_original_sample: whether the source row stays.
        prompt: text the caption starts from.
        prompt_key: field of the row that holds its own prompt; goes before ``prompt``.
        gpu_batch_size: accepted for Data-Juicer's recipes; the model chooses its own.
        trust_remote_code: accepted for Data-Juicer's recipes; code of a model folder is never run.
        max_new_tokens: longest caption, in tokens.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)
    pixels: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = ("hf_img2seq",)

    hf_img2seq: str = "Salesforce/blip2-opt-2.7b"
    caption_num: int = 1
    keep_candidate_mode: Literal["random_any", "similar_one_simhash", "all"] = "random_any"
    keep_original_sample: bool = True
    prompt: str | None = None
    prompt_key: str | None = None
    gpu_batch_size: int = 8
    trust_remote_code: bool = False
    max_new_tokens: int = 128

    def check(self) -> None:
        """At least one caption."""
        if self.caption_num < 1:
            raise ValueError("caption_num must be at least 1")

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """Originals and copies, ordered by source."""
        keys = row_keys(batch)
        pairs = chunk_pairs(batch, ctx)
        captions = self._captions(pairs, keys, self._prompts(batch), ctx)
        by_row: dict[int, list[list[list[str]]]] = {}
        for pair, drawn in zip(pairs, captions, strict=True):
            by_row.setdefault(pair.row, []).append(drawn)
        texts = batch.column(TEXT).to_pylist()
        source, is_child, out_texts = [], [], []
        for row, text in enumerate(texts):
            chunks = by_row.get(row)
            if chunks is None or self.keep_original_sample:
                source.append(row)
                is_child.append(False)
                out_texts.append(text)
            for choice in self._choices(text, chunks, keys[row], ctx) if chunks else ():
                first = not self.keep_original_sample and source.count(row) == 0
                source.append(row)
                is_child.append(not first)
                out_texts.append(write_captions(text, choice, ctx))
        made = with_column(batch.take(pa.array(source, pa.int64())), TEXT, pa.array(out_texts, pa.string()))
        return Made(made, np.array(source, np.int64), np.array(is_child, bool))

    def _prompts(self, batch: Batch) -> list[str]:
        """What each row's captions start from."""
        common = self.prompt or ""
        if not self.prompt_key:
            return [common] * batch.num_rows
        return [value if isinstance(value, str) else common for value in field_values(batch, self.prompt_key)[0]]

    def _captions(
        self, pairs: list[ChunkPair], keys: list[RowKey], prompts: list[str], ctx: OpContext
    ) -> list[list[list[str]]]:
        """[pair][candidate][picture] captions."""
        if not pairs:
            return []
        images: list[Image] = [image for pair in pairs for image in pair.images]
        owners = [keys[pair.row] for pair in pairs for _ in pair.images]
        wanted = np.array([prompts[pair.row] for pair in pairs for _ in pair.images], object)
        model = ctx.captioner(self.hf_img2seq)
        rounds = []
        for number in range(self.caption_num):
            seeds = [ctx.seed_of(f"{self.name} {number} {place}", key) for place, key in enumerate_same(owners)]
            drawn: list[str] = [""] * len(images)
            for prompt in dict.fromkeys(wanted.tolist()):
                places = np.flatnonzero(wanted == prompt).tolist()
                some = model.caption(
                    [images[place] for place in places],
                    seeds=None if self.caption_num == 1 else [seeds[place] for place in places],
                    max_new_tokens=self.max_new_tokens,
                    prompt=prompt,
                )
                for place, caption in zip(places, some, strict=True):
                    drawn[place] = caption
            rounds.append(drawn)
        found, start = [], 0
        for pair in pairs:
            stop = start + len(pair.images)
            found.append([drawn[start:stop] for drawn in rounds])
            start = stop
        return found

    def _choices(self, text: str, chunks: list[list[list[str]]], key: RowKey, ctx: OpContext) -> list[list[list[str]]]:
        """[copy][chunk][picture] captions that become rows."""
        every = [[chunk[number] for chunk in chunks] for number in range(self.caption_num)]
        if self.keep_candidate_mode == "all":
            return every
        if self.keep_candidate_mode == "random_any" or self.caption_num == 1:
            return [every[ctx.generator(self.name, key).randrange(self.caption_num)]]
        target = simhash(ctx.tokens.strip(text))
        drawn = [" ".join(caption for chunk in choice for caption in chunk) for choice in every]
        distance = [(simhash(words) ^ target).bit_count() for words in drawn]
        return [every[int(np.argmin(distance))]]


def enumerate_same(keys: list[RowKey]) -> list[tuple[int, RowKey]]:
    """Each key with how many equal ones stand before it."""
    seen: dict[RowKey, int] = {}
    found = []
    for key in keys:
        found.append((seen.get(key, 0), key))
        seen[key] = seen.get(key, 0) + 1
    return found


def write_captions(text: str, chunks: list[list[str]], ctx: OpContext) -> str:
    """The text with its words replaced by captions, one list per chunk with pictures.

    A text with one picture keeps its layout. Otherwise each chunk becomes its special tokens with the captions after
    the image tokens and the end-of-chunk token, as in Data-Juicer (each caption after its own picture, where
    Data-Juicer puts all after the first).
    """
    if len(chunks) == 1 and len(chunks[0]) == 1:
        simple = ctx.tokens.with_caption(text, chunks[0][0])
        if simple is not None:
            return simple
    out, remaining = [], list(chunks)
    for chunk, _, count in ctx.tokens.chunks(text):
        if not chunk.strip():
            continue
        captions = list(remaining.pop(0)) if count and remaining else []
        parts = []
        for match in ctx.tokens.pattern().finditer(chunk):
            parts.append(match.group())
            if match.group() in ctx.tokens.images and captions:
                parts.append(f" {captions.pop(0)} ")
        out.append("".join(parts) + ctx.tokens.eoc)
    return "".join(out)
