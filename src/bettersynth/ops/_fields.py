"""Values of any field of a row, by dotted path: what operators see first, then the record as it was read."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.formats.data_juicer import nested
from bettersynth.ops.base import KEY, RECORD, STATS, Batch

DJ_STATS, DJ_META = "__dj__stats__.", "__dj__meta__"
LEAST = -float(2**63 - 1)  # Data-Juicer's place for what is no number


def field_values(batch: Batch, key: str) -> tuple[list[Any], list[bool]]:
    """For each row the value at ``key`` (None where there is none), and whether the row has the field at all.

    ``__dj__stats__.NAME`` is the stat NAME of an earlier step, or of the record when no step computed it.
    """
    column = STATS + key.removeprefix(DJ_STATS) if key.startswith(DJ_STATS) else key
    if column in batch.schema.names and column not in (*KEY, RECORD, DJ_META):
        return batch.column(column).to_pylist(), [True] * batch.num_rows
    records = _records(batch, key)
    top = key.split(".")[0]
    return [nested(record, key) for record in records], [key in record or top in record for record in records]


def _records(batch: Batch, key: str) -> list[dict[str, Any]]:
    """The records as they were read; with what steps said of the rows when ``key`` asks for it."""
    records = [orjson.loads(record) for record in batch.column(RECORD).to_pylist()]
    if key.split(".")[0] == DJ_META and DJ_META in batch.schema.names:
        for record, meta in zip(records, batch.column(DJ_META).to_pylist(), strict=True):
            record[DJ_META] = {**(record.get(DJ_META) or {}), **orjson.loads(meta or "{}")}
    return records


def field_of_every_row(batch: Batch, key: str) -> list[Any]:
    """For each row the value at a dotted path, every part of which must be there; the value itself may be null.

    Raises:
        DataError: a row lacks the field.
    """
    column = STATS + key.removeprefix(DJ_STATS) if key.startswith(DJ_STATS) else key
    if column in batch.schema.names and column not in (*KEY, RECORD, DJ_META):
        return list(batch.column(column).to_pylist())
    parts, found = key.split("."), []
    for record in _records(batch, key):
        value: Any = record
        for part in parts:
            if not isinstance(value, dict) or part not in value:
                raise DataError(t("the row has no field '{key}'", key=key))
            value = value[part]
        found.append(value)
    return found


def to_number(value: Any) -> float | None:
    """A number as Data-Juicer's selectors read it: text is parsed, lists are averaged; None for anything else."""
    if value is None or value == []:
        return None
    try:
        number = float(value) if isinstance(value, str) else float(np.asarray(value).mean())
    except (TypeError, ValueError):
        return None
    return number
