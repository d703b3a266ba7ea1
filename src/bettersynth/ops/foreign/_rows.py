"""Between our batches and Data-Juicer's rows: absolute paths, its spelling of tokens, its stats and meta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from bettersynth.core.sample import DJ_IMAGE
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, KEY, RECORD, STATS, TEXT, Batch, row_keys, with_column

DJ_STATS, DJ_META = "__dj__stats__", "__dj__meta__"
_FILES = ("audios", "videos")
_SEED_LIMIT = 2**31


def tokens_of(ctx: OpContext) -> dict[str, str]:
    """Special tokens as Data-Juicer is told them. Images always have its own spelling in the rows sent."""
    return {"image": DJ_IMAGE, "audio": ctx.tokens.audio, "video": ctx.tokens.video, "eoc": ctx.tokens.eoc}


def spelling(text: str, ctx: OpContext) -> str:
    """The image token a text uses."""
    return next((token for token in ctx.tokens.images if token in text), DJ_IMAGE)


def to_rows(batch: Batch, ctx: OpContext) -> list[tuple[bytes, int]]:
    """For each row its JSON as Data-Juicer's operators expect it, and a seed."""
    names = [name for name in batch.schema.names if name.startswith(STATS)]
    stats = {name.removeprefix(STATS): batch.column(name).to_pylist() for name in names}
    groups = batch.column("__group__").to_pylist() if "__group__" in batch.schema.names else None
    texts, files = batch.column(TEXT).to_pylist(), batch.column(KEY[0]).to_pylist()
    metas = batch.column(DJ_META).to_pylist() if DJ_META in batch.schema.names else [None] * batch.num_rows
    paths, records, keys = ctx.image_paths(batch), batch.column(RECORD).to_pylist(), row_keys(batch)
    rows = []
    for place, (text, record) in enumerate(zip(texts, records, strict=True)):
        row = orjson.loads(record)
        for key in _FILES:
            if isinstance(row.get(key), list):
                row[key] = [_whole(ctx, files[place], path) for path in row[key]]
        row[TEXT] = text.replace(spelling(text, ctx), DJ_IMAGE)
        row[IMAGES] = [str(path) for path in paths[place]]
        row[DJ_STATS] = {name: values[place] for name, values in stats.items() if values[place] is not None}
        row[DJ_META] = {**(row.get(DJ_META) or {}), **orjson.loads(metas[place] or "{}")}
        if groups is not None:
            row["__group__"] = groups[place]
        rows.append((orjson.dumps(row), ctx.seed_of("data_juicer", keys[place]) % _SEED_LIMIT))
    return rows


def _whole(ctx: OpContext, file: int, path: Any) -> Any:
    return str(ctx.image_path(file, path)) if isinstance(path, str) and "://" not in path else path


def from_rows(taken: Batch, rows: Sequence[Mapping[str, Any]], ctx: OpContext) -> Batch:
    """The batch with the operator's texts, pictures and other fields. ``taken`` holds the source row of each.

    Paths that were there before get back the form in which the record writes them.
    """
    before, written = ctx.image_paths(taken), taken.column(IMAGES).to_pylist()
    old_texts, files = taken.column(TEXT).to_pylist(), taken.column(KEY[0]).to_pylist()
    records = [orjson.loads(record) for record in taken.column(RECORD).to_pylist()]
    texts, images, new_records, metas = [], [], [], []
    for place, row in enumerate(rows):
        token, record = spelling(old_texts[place], ctx), records[place]
        texts.append(_text(row.get(TEXT)).replace(DJ_IMAGE, token))
        as_written = dict(zip(map(str, before[place]), written[place] or (), strict=True))
        images.append([as_written.get(path, path) for path in row.get(IMAGES) or ()])
        # A field that only other rows of the batch have comes back empty; it is not written into this one.
        kept = {key: value for key, value in row.items() if value is not None or key in record}
        for key in (TEXT, IMAGES, DJ_STATS, DJ_META):
            kept.pop(key, None)
        metas.append(orjson.dumps(row[DJ_META]).decode() if row.get(DJ_META) else None)
        record.pop(DJ_META, None)
        for key in _FILES:
            if isinstance(kept.get(key), list) and isinstance(record.get(key), list):
                back = {_whole(ctx, files[place], path): path for path in record[key] if isinstance(path, str)}
                kept[key] = [back.get(path, path) for path in kept[key]]
        # Fields that an operator leaves out stay, as in Data-Juicer. Text and pictures are written from their columns;
        # their old values only hold the place in the order of fields.
        new_records.append(orjson.dumps({**record, **kept}).decode())
    out = with_column(taken, TEXT, pa.array(texts, pa.string()))
    out = with_column(out, IMAGES, pa.array(images, pa.list_(pa.string())))
    out = with_column(out, RECORD, pa.array(new_records, pa.string()))
    # What operators say of a row besides its fields; written beside the stats.
    return with_column(out, DJ_META, pa.array(metas, pa.string()))


def _text(value: Any) -> str:
    """A text; some operators make a list of answers of it, which become lines."""
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return "" if value is None else str(value)
