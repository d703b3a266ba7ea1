"""A shard of JSON lines as a batch, all rows at once: what most data sets are. Anything unusual is left to others."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.sample import RowKey
from bettersynth.engine.jobs import BASE_SCHEMA, Settings
from bettersynth.engine.source import SourceShard
from bettersynth.ops._arrow import array
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import ID, IMAGES, TEXT, Batch

_MOST_BYTES = (1 << 31) - 1  # of an Arrow string column


def plain_batch(data: bytes, source: SourceShard, settings: Settings, ctx: OpContext) -> Batch | None:
    """The rows of a shard, or None unless every line is a record that can be used as it is.

    That is: an object with a text under a key of its own, no id or a text or whole number, and pictures that are there
    where they must be.

    Args:
        data: the lines of the shard.
    """
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines or settings.required or "." in settings.text_key or len(data) > _MOST_BYTES:
        return None
    try:
        records = list(map(orjson.loads, lines))
        texts = [record[settings.text_key] for record in records]
        images = [record.get(settings.image_key) for record in records]
        ids = [record.get("id") for record in records]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if set(map(type, records)) != {dict} or set(map(type, texts)) != {str} or not _are_paths(images):
        return None
    if not set(map(type, ids)) <= {str, int, type(None)}:
        return None
    if settings.on_missing_image == "quarantine" and not _are_there(images, source.file, ctx):
        return None
    first = source.span.first_line
    names = [_name(name, source.file, first + place) for place, name in enumerate(ids)]
    rows = len(lines)
    numbers = (np.full(rows, source.file, np.int32), np.arange(first, first + rows), np.zeros(rows, np.int64))
    lists = (names, texts, [paths or [] for paths in images])
    kinds = (BASE_SCHEMA.field(name).type for name in (ID, TEXT, IMAGES))
    arrays = [*(array(each) for each in numbers), *map(pa.array, lists, kinds)]
    return pa.record_batch([*arrays, _joined([line.strip() for line in lines])], schema=BASE_SCHEMA)


def _are_paths(images: list[Any]) -> bool:
    if not set(map(type, images)) <= {list, type(None)}:
        return False
    return all(type(path) is str for paths in images for path in paths or ())


def _are_there(images: list[Any], file: int, ctx: OpContext) -> bool:
    try:
        for paths in images:
            for path in paths or ():
                ctx.check_file(file, path)
    except DataError:
        return False
    return True


def _name(row_id: Any, file: int, line: int) -> str:
    return row_id if type(row_id) is str else str(RowKey(file, line)) if row_id is None else str(row_id)


def _joined(lines: list[bytes]) -> pa.Array:
    """Lines of UTF-8 as a string column."""
    offsets = np.zeros(len(lines) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, lines), np.int32, len(lines)), out=offsets[1:])
    return pa.StringArray.from_buffers(len(lines), pa.py_buffer(offsets), pa.py_buffer(b"".join(lines)))
