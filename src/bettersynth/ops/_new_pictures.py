"""Writing changed pictures: reproducible names, whole files or none, and the frame of augmenting operators."""

from __future__ import annotations

import io
import os
import random
import re
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.core.artifact import write_atomic
from bettersynth.core.fingerprint import digest_bytes, digest_json
from bettersynth.core.sample import RowKey
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, KEY, TEXT, Batch, Generator, Made, Mapper, Operator, row_keys, with_column

if TYPE_CHECKING:
    from PIL.Image import Image

SOURCE_FILE = "__dj__source_file__"
_FOLDER = "__dj__produced_data__"
_HASH_PART = re.compile(r"__dj_hash_#[^#]*#$")
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}


def write_picture(operator: Operator, ctx: OpContext, file: int, entry: str, image: Image, *seed: object) -> str:
    """Write a changed picture and return its path as the record will hold it.

    The name is the source's with a digest of operator, parameters, source bytes and ``seed``, in the layout of
    Data-Juicer's produced files (whose names hold the time and the process, so they differ in every run). It goes to
    the operator's ``save_dir`` (relative ones start at the image root), else to ``$DJ_PRODUCED_DATA_DIR``, else beside
    the source. A file of that name is left as it is: it holds the same picture.

    Args:
        file: number of the row's source file. entry: the source picture's path as the record holds it.
        seed: what else decided about the new picture, e.g. the row's key and the number of the copy.
    """
    source = PurePosixPath(entry)
    save_dir: str | None = getattr(operator, "save_dir", None)
    produced = os.environ.get("DJ_PRODUCED_DATA_DIR")
    beside = source.parent
    if _FOLDER in beside.parts:  # a picture made by an earlier operator: its sources' folder, not one inside its own
        beside = PurePosixPath(*beside.parts[: beside.parts.index(_FOLDER)])
    folder = PurePosixPath(
        save_dir or (f"{produced}/{operator.name}" if produced else f"{beside.as_posix()}/{_FOLDER}/{operator.name}")
    )
    has_alpha = image.mode == "RGBA"
    suffix = source.suffix if source.suffix.lower() in _FORMATS and not has_alpha else ".png"
    params = {field.name: getattr(operator, field.name) for field in fields(operator) if field.name != "save_dir"}
    content = digest_bytes(ctx.image_path(file, entry).read_bytes())
    digest = digest_json([operator.name, type(operator).version, params, content, *map(str, seed)])[:32]
    made = (folder / f"{_HASH_PART.sub('', source.stem)}__dj_hash_#{digest}#{suffix}").as_posix()
    place = ctx.image_path(file, made)
    if not place.is_file():
        stream = io.BytesIO()
        image.save(stream, _FORMATS[suffix.lower()], **({"quality": 95} if suffix.lower() in (".jpg", ".jpeg") else {}))
        write_atomic(place, stream.getvalue())
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureMapper(Mapper):
    """A mapper that puts changed pictures in the place of a row's pictures, and notes the old ones.

    Args:
        save_dir: folder of the new pictures; None: beside the old ones.
    """

    reads: ClassVar[tuple[str, ...]] = (IMAGES,)
    writes: ClassVar[tuple[str, ...]] = (IMAGES, SOURCE_FILE)
    pixels: ClassVar[bool] = True

    save_dir: str | None = None

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """New paths in ``images``; the paths before in ``__dj__source_file__``, as in Data-Juicer."""
        files, keys = batch.column(KEY[0]).to_pylist(), row_keys(batch)
        rows = [list(row or ()) for row in batch.column(IMAGES).to_pylist()]
        known = SOURCE_FILE in batch.schema.names
        before = batch.column(SOURCE_FILE).to_pylist() if known else [None] * batch.num_rows
        out, sources = [], []
        for file, key, row, old in zip(files, keys, rows, before, strict=True):
            generator = ctx.generator(self.name, key)
            new: dict[str, str] = {}
            for entry in dict.fromkeys(row):
                image = self.change(ctx.image_path(file, entry), ctx, generator)
                new[entry] = entry if image is None else write_picture(self, ctx, file, entry, image)
            out.append([new[entry] for entry in row])
            # A picture left alone keeps the source that an earlier step noted.
            old = old if old is not None and len(old) == len(row) else row
            sources.append([was if new[entry] == entry else entry for entry, was in zip(row, old, strict=True)])
        batch = with_column(batch, IMAGES, pa.array(out, batch.column(IMAGES).type))
        return with_column(batch, SOURCE_FILE, pa.array(sources, pa.list_(pa.string())))

    def change(self, path: Path, ctx: OpContext, generator: random.Random) -> Image | None:
        """The new picture, or None to leave this one alone."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureAugmenter(Generator):
    """A generator of rows with changed pictures whose captions stay true.

    Rows without exactly one picture, and those whose caption the change could make false, get no copy; they are
    counted by reason among the run's flags. Draws depend on the run's seed and the row alone.

    Args:
        aug_num: copies of each row.
        keep_original_sample: whether the source row stays; it always does when no copy can be made.
        save_dir: folder of the new pictures; None: beside the old ones.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    pixels: ClassVar[bool] = True

    aug_num: int = 1
    keep_original_sample: bool = True
    save_dir: str | None = None

    def check(self) -> None:
        """At least one copy."""
        if self.aug_num < 1:
            raise ValueError("aug_num must be at least 1")

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """Originals and copies, ordered by source."""
        files, keys = batch.column(KEY[0]).to_pylist(), row_keys(batch)
        texts, rows = batch.column(TEXT).to_pylist(), batch.column(IMAGES).to_pylist()
        source, is_child, out_texts, out_images = [], [], [], []
        for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
            copies = self._copies(text, list(row or ()), files[number], keys[number], ctx)
            keeps = self.keep_original_sample or not copies
            for place, (new_text, new_row) in enumerate([(text, list(row or ())), *copies] if keeps else copies):
                source.append(number)
                is_child.append(place > 0)
                out_texts.append(new_text)
                out_images.append(new_row)
        made = batch.take(pa.array(source, pa.int64()))
        made = with_column(made, TEXT, pa.array(out_texts, pa.string()))
        made = with_column(made, IMAGES, pa.array(out_images, batch.column(IMAGES).type))
        return Made(made, np.array(source, np.int64), np.array(is_child, bool))

    def _copies(self, text: str, row: list[str], file: int, key: RowKey, ctx: OpContext) -> list[tuple[str, list[str]]]:
        if len(row) != 1:
            ctx.flags[f"{self.name}: not one picture"] += 1
            return []
        found = []
        for number in range(self.aug_num):
            generator = ctx.generator(f"{self.name} {number}", key)
            made = self.augment(ctx.image_path(file, row[0]), text, ctx, generator)
            if isinstance(made, str):
                ctx.flags[f"{self.name}: {made}"] += 1
                continue
            image, new_text = made
            found.append((new_text, [write_picture(self, ctx, file, row[0], image, key, number, ctx.seed)]))
        return found

    def augment(self, path: Path, text: str, ctx: OpContext, generator: random.Random) -> tuple[Image, str] | str:
        """A changed picture and its text, or why there is none."""
        raise NotImplementedError
