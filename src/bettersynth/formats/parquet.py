"""Parquet files of rows, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_ROWS = 4096
_BATCH_BYTES = 64 * 2**20


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns. Raises DataError when the file is missing or is not Parquet."""
    import pyarrow.parquet as pq  # takes long to import, and most data are JSON lines

    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, a few thousand in memory at a time; fewer where they hold pictures.

    Raises:
        DataError: the file is missing or is not Parquet.
    """
    import pyarrow.parquet as pq

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
