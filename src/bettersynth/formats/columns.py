"""Rows as Arrow tables of one schema, which has every column and every field that any of the rows has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_ROWS = 4096
Rows = Callable[[], Iterable[Mapping[str, Any]]]
"""Gives the rows from the start each time it is called: once for the schema, once for the tables."""


class Columns:
    """The schema of some rows, and the rows as tables of it, a few thousand in memory at a time.

    Args:
        rows: the rows.
        empty_objects: whether the file can hold ``{}``; where it cannot (Parquet), it is written as null.

    Raises:
        DataError: values that cannot share a column, here or while the tables are made.
    """

    def __init__(self, rows: Rows, *, empty_objects: bool = True) -> None:
        self._rows = rows
        with _one_type_each():
            schemas = [pa.Table.from_pylist(_naming_all(chunk)).schema for chunk in _chunks(rows())]
            schema = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
        self._is_mended = not empty_objects and any(_is_hollow(field.type) for field in schema)
        if self._is_mended:
            schema = pa.schema([pa.field(field.name, _without_hollow(field.type)) for field in schema])
        self.schema: pa.Schema = schema

    def tables(self) -> Iterator[pa.Table]:
        """The rows, in order."""
        for chunk in _chunks(self._rows()):
            if self._is_mended:
                chunk = [{name: _null_for_empty(value) for name, value in row.items()} for row in chunk]
            with _one_type_each():
                table = pa.Table.from_pylist(chunk, schema=self.schema)
            yield table


@contextmanager
def _one_type_each() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        hint = t("write JSON lines, which take any value")
        raise DataError(t("rows of different types cannot share a column"), got=str(error), hint=hint) from error


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _ROWS)):
        yield chunk


def _naming_all(chunk: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The chunk with its first row naming every column (Arrow takes the names from the first row alone)."""
    names = dict.fromkeys(name for row in chunk for name in row)
    return [{**dict.fromkeys(names), **chunk[0]}, *chunk[1:]]


def _is_hollow(kind: Any) -> bool:
    """Whether a type is, or holds, an object without fields."""
    if pa.types.is_list(kind):
        return _is_hollow(kind.value_type)
    return pa.types.is_struct(kind) and (kind.num_fields == 0 or any(_is_hollow(field.type) for field in kind))


def _without_hollow(kind: Any) -> Any:
    if pa.types.is_list(kind):
        return pa.list_(_without_hollow(kind.value_type))
    if not pa.types.is_struct(kind):
        return kind
    return pa.struct([(field.name, _without_hollow(field.type)) for field in kind]) if kind.num_fields else pa.null()


def _null_for_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _null_for_empty(inner) for name, inner in value.items()} or None
    return [_null_for_empty(inner) for inner in value] if isinstance(value, list) else value
