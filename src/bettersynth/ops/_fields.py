"""Values of any field of a row, by dotted path: what operators see first, then the record as it was read."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from bettersynth.formats.data_juicer import nested
from bettersynth.ops.base import KEY, RECORD, STATS, Batch

DJ_STATS = "__dj__stats__."
LEAST = -float(2**63 - 1)  # Data-Juicer's place for what is no number


def field_values(batch: Batch, key: str) -> tuple[list[Any], list[bool]]:
    """For each row the value at ``key`` (None where there is none), and whether the row has the field at all.

    ``__dj__stats__.NAME`` is the stat NAME of an earlier step, or of the record when no step computed it.
    """
    column = STATS + key.removeprefix(DJ_STATS) if key.startswith(DJ_STATS) else key
    if column in batch.schema.names and column not in (*KEY, RECORD):
        return batch.column(column).to_pylist(), [True] * batch.num_rows
    records = [orjson.loads(record) for record in batch.column(RECORD).to_pylist()]
    top = key.split(".")[0]
    return [nested(record, key) for record in records], [key in record or top in record for record in records]


def to_number(value: Any) -> float | None:
    """A number as Data-Juicer's selectors read it: text is parsed, lists are averaged; None for anything else."""
    if value is None or value == []:
        return None
    try:
        number = float(value) if isinstance(value, str) else float(np.asarray(value).mean())
    except (TypeError, ValueError):
        return None
    return number
