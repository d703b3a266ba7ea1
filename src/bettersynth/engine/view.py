"""A step with columns of its own: it sees another text or picture column in the place of the recipe's."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.engine.jobs import BASE_SCHEMA
from bettersynth.engine.phase import Phase
from bettersynth.formats.data_juicer import nested
from bettersynth.ops.base import IMAGES, RECORD, TEXT, Batch, GlobalOperator, Mapper, with_column


def enter(batch: Batch, phase: Phase) -> Batch:
    """The batch as the step sees it.

    Raises:
        DataError: a row has no such text, or something else than a text there.
    """
    for key, column in ((phase.text_key, TEXT), (phase.image_key, IMAGES)):
        if key is not None:
            values = _values(batch, key, is_text=column == TEXT)
            batch = with_column(batch, column, pa.array(values, BASE_SCHEMA.field(column).type))
    return batch


def leave(before: Batch, after: Batch, phase: Phase) -> Batch:
    """The batch as the next step sees it; what a mapper rewrote becomes a column under the step's own name."""
    for key, column in ((phase.text_key, TEXT), (phase.image_key, IMAGES)):
        if key is not None:
            if isinstance(phase.operator, Mapper | GlobalOperator) and column in phase.operator.writes:
                after = with_column(after, key, after.column(column))
            after = with_column(after, column, before.column(column))
    return after


def _values(batch: Batch, key: str, *, is_text: bool) -> list[Any]:
    if key in batch.schema.names:
        values = batch.column(key).to_pylist()
    else:
        values = [nested(orjson.loads(record), key) for record in batch.column(RECORD).to_pylist()]
    for value in values:
        if is_text and not isinstance(value, str):
            if value is None:
                raise DataError(t("no text: field '{key}' is missing or null", key=key))
            raise DataError(t("field '{key}' must be a string, got {got}", key=key, got=type(value).__name__))
    return values if is_text else [value or [] for value in values]
