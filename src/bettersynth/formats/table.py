"""CSV and TSV files: cells as text, turned into numbers or lists only where nothing is lost by it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
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
        DataError: unreadable, not UTF-8, or a row with more cells than the header.
    """
    mark = delimiter or ("\t" if path.name.endswith(".tsv") else ",")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            for number, row in enumerate(csv.DictReader(handle, delimiter=mark), 2):
                if None in row:
                    raise DataError(t("more cells than column names"), where=f"{path}:{number}")
                yield {
                    name: cell if name in texts else value_of(cell)
                    for name, cell in row.items()
                    if columns is None or name in columns
                }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error)) from error


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
