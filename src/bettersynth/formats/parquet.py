"""Parquet files of rows, read in batches and written with zstd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_ROWS = 4096
_BATCH_BYTES = 64 * 2**20


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns. Raises DataError when the file is missing or is not Parquet."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, a few thousand in memory at a time; fewer where they hold pictures.

    Raises:
        DataError: the file is missing or is not Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            row_bytes = sum(group.total_byte_size for group in groups) // max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=max(1, min(_ROWS, _BATCH_BYTES // max(1, row_bytes)))):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(t("cannot read the data file"), where=str(path), got=str(error).splitlines()[0])


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], *, schema: pa.Schema | None = None) -> int:
    """Write rows (whole file or nothing); the schema comes from the first rows unless given. Returns their number."""
    iterator = iter(rows)
    first = list(islice(iterator, _ROWS))
    table = pa.Table.from_pylist(first, schema=schema)
    temp = path.with_name(f".{path.name}.tmp")
    count = len(first)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temp, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            while more := list(islice(iterator, _ROWS)):
                writer.write_table(pa.Table.from_pylist(more, schema=table.schema))
                count += len(more)
        temp.replace(path)
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(path), got=error.strerror or str(error)) from error
    finally:
        temp.unlink(missing_ok=True)
    return count
