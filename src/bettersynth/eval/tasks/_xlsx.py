"""Spreadsheets with the same bytes for the same rows: no clock time inside."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CLOCK = re.compile(rb"(<dcterms:(created|modified)[^>]*>)[^<]*(<)")
# Characters that XML 1.0 cannot hold; a model may emit them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def write(stream: BinaryIO, table: Sequence[Sequence[str | int | None]]) -> None:
    """Write one sheet named ``Sheet1``, the first row being the header; no cell is ever read as a formula."""
    from openpyxl import Workbook
    from openpyxl.cell.cell import TYPE_STRING

    book = Workbook()
    sheet = book.active
    sheet.title = "Sheet1"
    for number, row in enumerate(table, 1):
        for column, value in enumerate(row, 1):
            if value is None:
                continue
            cell = sheet.cell(number, column)
            cell.value = _CONTROL.sub("", value) if isinstance(value, str) else value
            if isinstance(value, str):
                cell.data_type = TYPE_STRING
    draft = io.BytesIO()
    book.save(draft)
    with zipfile.ZipFile(draft) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist()):
            data = _CLOCK.sub(rb"\g<1>2000-01-01T00:00:00Z\3", source.read(name))
            target.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)


def read(path: Path) -> list[dict[str, object]]:
    """The rows of the first sheet as column name to value; empty cells are None."""
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    try:
        header, *rows = book.worksheets[0].iter_rows(values_only=True)
        return [dict(zip(map(str, header), row, strict=True)) for row in rows]
    finally:
        book.close()
