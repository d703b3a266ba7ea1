"""Parquet files of rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bettersynth.core.errors import DataError
from bettersynth.formats.parquet import read_parquet


def test_round_trip_over_several_batches(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": f"t{i}", "images": [f"{i}.jpg"]} for i in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert list(read_parquet(tmp_path / "d.parquet")) == rows


def test_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"no")
    for name in ("d.parquet", "none.parquet"):
        with pytest.raises(DataError, match="cannot read"):
            list(read_parquet(tmp_path / name))
