"""CSV and TSV files: cells as text, turned into numbers or lists only where nothing is lost by it."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_END = "\x00end of the table"  # a last row of its own, unless an open quotation mark swallows it
_FRACTION = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def read_table(
    path: Path, *, delimiter: str | None = None, columns: Collection[str] | None = None, texts: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Rows of a CSV or TSV file with a header line.

    Args:
        delimiter: by default a comma, or a tab for names that end in ``.tsv``.
        columns: read only these.
        texts: columns whose cells always stay text.

    Raises:
        DataError: unreadable, not UTF-8, a column named twice, a row with more cells than the header, or a quotation
            mark that is never closed (the rows after it would end up in one cell).
    """
    mark = delimiter or ("\t" if path.name.endswith(".tsv") else ",")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(chain(handle, (_END,)), delimiter=mark)
            names = reader.fieldnames or ()
            twice = sorted(name for name, times in Counter(names).items() if times > 1)
            if twice:
                raise DataError(t("a column is named twice"), where=f"{path}:1", got=", ".join(twice))
            start = reader.line_num + 1
            for row in _wide(reader):
                number, start = start, reader.line_num + 1
                cells = list(row.values())
                if cells[:1] == [_END]:
                    return
                if isinstance(cells[-1], str) and cells[-1].endswith(_END):
                    raise DataError(t("a quotation mark is never closed"), where=f"{path}:{number}")
                if None in row:
                    raise DataError(t("more cells than column names"), where=f"{path}:{number}")
                yield {
                    name: cell if name in texts else value_of(cell)
                    for name, cell in row.items()
                    if columns is None or name in columns
                }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error)) from error


def _wide(reader: Iterator[Any]) -> Iterator[Any]:
    """Rows with cells of any length; Python's limit of 128 KiB, one for the whole process, is put back each time."""
    while True:
        limit = csv.field_size_limit(sys.maxsize)
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(limit)
        if row is None:
            return
        yield row


def value_of(cell: str | None) -> Any:
    """A cell as the value it was written from, when writing that value gives the same cell again.

    >>> [value_of(cell) for cell in ("12", "012", "0.5", '["a.jpg"]', "")]
    [12, '012', 0.5, ['a.jpg'], None]
    """
    if not cell:
        return None
    if _WHOLE.fullmatch(cell) and cell != "-0":
        return int(cell)
    if _FRACTION.fullmatch(cell) and repr(float(cell)) == cell:
        return float(cell)
    if cell[0] in "[{" and cell[-1] in "]}":
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def table_line(row: Mapping[str, Any], names: list[str], delimiter: str) -> bytes:
    """One row as a line; lists and mappings as JSON, null as an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerow([_cell(row.get(name)) for name in names])
    return buffer.getvalue().encode("utf-8", "surrogatepass")


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return orjson.dumps(value).decode()
    return "" if value is None else value
