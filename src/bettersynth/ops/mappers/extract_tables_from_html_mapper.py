"""Note the tables of an HTML text, cell by cell or as markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import DJ_META, field_values
from bettersynth.ops._html_tree import Element, parse
from bettersynth.ops.base import RECORD, TEXT, Batch, Mapper, with_column


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractTablesFromHtmlMapper(Mapper):
    """As in Data-Juicer: a list of tables per row, each a list of rows of cells, in what is noted beside the stats.

    Broken HTML is read as it is written. A table inside another is a table too, and its rows are also the outer one's.
    A row that has the field already keeps it.

    Args:
        tables_field_name: field for the tables.
        retain_html_tags: keep each table as its markup instead.
        include_header: keep rows with header cells.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, RECORD)
    writes: ClassVar[tuple[str, ...]] = (DJ_META,)

    tables_field_name: str = "html_tables"
    retain_html_tags: bool = False
    include_header: bool = True

    def check(self) -> None:
        """The field needs a name."""
        if not self.tables_field_name:
            raise ValueError("tables_field_name must not be empty")

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """The tables beside what earlier steps noted."""
        metas = [value or {} for value in field_values(batch, DJ_META)[0]]
        for meta, text in zip(metas, batch.column(TEXT).to_pylist(), strict=True):
            if self.tables_field_name not in meta:
                meta[self.tables_field_name] = self.tables(text)
        return with_column(batch, DJ_META, pa.array([orjson.dumps(meta).decode() for meta in metas], pa.string()))

    def tables(self, text: str) -> list[Any]:
        """The tables of one text."""
        if "<" not in text:
            return []
        found = [element for element in parse(text).inside() if element.name == "table"]
        if self.retain_html_tags:
            return [table.markup() for table in found]
        return [cells for table in found if (cells := self._cells(table))]

    def _cells(self, table: Element) -> list[list[str]]:
        rows = [element for element in table.inside() if element.name == "tr"]
        wanted = [row for row in rows if self.include_header or not row.direct("th")]
        cells = ([cell.text() for cell in row.direct("td", "th")] for row in wanted)
        return [row for row in cells if row]
