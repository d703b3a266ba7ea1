"""Parquet files of rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bettersynth.core.errors import DataError
from bettersynth.formats.parquet import read_parquet
from bettersynth.formats.pictures import PictureFolder


def test_round_trip_over_several_batches(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": f"t{i}", "images": [f"{i}.jpg"]} for i in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert list(read_parquet(tmp_path / "d.parquet")) == rows


def test_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"no")
    for name in ("d.parquet", "none.parquet"):
        with pytest.raises(DataError, match="cannot read"):
            list(read_parquet(tmp_path / name))


def test_paths_beside_encoded_pictures_are_whole(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "work", "images/a", tmp_path)
    cells = [{"bytes": None, "path": "in/a.png"}, {"bytes": b"\x89PNG\r\n\x1a\n", "path": "b.png"}, "c.png"]
    row = folder.unpack({"images": cells}, 3, image_key="images", bytes_key="image_bytes")
    assert row["images"] == [str(tmp_path / "in/a.png"), "images/a/00000003-1.png", str(tmp_path / "c.png")]
    named = {"images": ["d.png"], "image_bytes": None}
    assert folder.unpack(named, 4, image_key="images", bytes_key="image_bytes")["images"] == [str(tmp_path / "d.png")]
    plain = folder.unpack({"images": ["d.png"]}, 5, image_key="images", bytes_key="image_bytes")
    assert plain["images"] == ["d.png"]
