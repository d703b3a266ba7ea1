"""JSON lines: ranges, bad lines, round trips."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.core.errors import DataError
from bettersynth.formats import jsonl


def test_ranges_cover_the_file_and_depend_on_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"a":1}\n\n{"a":2}\r\n{"a":3}')  # blank line, CRLF, no final line feed
    spans = jsonl.split_lines(path, lines_per_range=2)
    assert [(s.first_line, s.lines) for s in spans] == [(1, 2), (3, 2)]
    assert spans[0].stop == spans[1].start and spans[1].stop == path.stat().st_size
    rows = [row for s in spans for row in jsonl.parse_lines(jsonl.read_range(path, s), first_line=s.first_line)]
    assert rows == [(1, {"a": 1}), (3, {"a": 2}), (4, {"a": 3})]
    assert jsonl.count_lines(path) == 4


def test_bad_lines_keep_their_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": }\n[1]\n{"b": "\xff"}\n{"c": "\\ud800"}\n{"d": 4}\n')
    rows = list(jsonl.read_rows(path))
    good = [(n, r) for n, r in rows if isinstance(r, dict)]
    bad = [r for _, r in rows if isinstance(r, jsonl.BadLine)]
    assert good == [(1, {"a": 1}), (6, {"d": 4})]
    assert [b.line for b in bad] == [2, 3, 4, 5]
    assert "not valid JSON" in bad[0].reason and "list" in bad[1].reason and "\\xff" in bad[2].raw


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"a":1}\n')
    (span,) = jsonl.split_lines(path, lines_per_range=10)
    path.write_bytes(b'{"a":2}\n')
    with pytest.raises(DataError, match="changed"):
        jsonl.read_range(path, span)
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        jsonl.read_range(path, span)


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    rows = [{"id": i, "text": "ü\u2028\n" * i, "images": []} for i in range(5)]
    assert jsonl.write_rows(tmp_path / name, rows) == 5
    assert [row for _, row in jsonl.read_rows(tmp_path / name)] == rows
    first = (tmp_path / name).read_bytes()
    jsonl.write_rows(tmp_path / name, rows)
    assert (tmp_path / name).read_bytes() == first


def test_a_damaged_gz_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match="cannot read"):
        list(jsonl.read_rows(tmp_path / "d.jsonl.gz"))


@given(
    st.lists(st.text(alphabet='ab\r {}"\\1', max_size=8), max_size=8),
    *(st.integers(1, 4), st.integers(1, 30), st.integers(1, 9)),
)
def test_no_line_is_lost_whatever_the_ranges_and_blocks(lines: list[str], size: int, most: int, block: int) -> None:
    data = "\n".join(lines).encode()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.jsonl"
        path.write_bytes(data)
        whole = list(jsonl.parse_lines(data))
        with patch.object(jsonl, "_BLOCK_BYTES", block):
            spans = jsonl.split_lines(path, lines_per_range=size, bytes_per_range=most)
        ends = [data.rfind(b"\n", span.start, span.stop - 1) + 1 for span in spans]  # where the last line begins
        assert all(span.lines <= size and end - span.start < most for span, end in zip(spans, ends, strict=True))
        assert all(span.lines == size or span.stop - span.start >= most for span in spans[:-1])
        parts = [r for s in spans for r in jsonl.parse_lines(jsonl.read_range(path, s), first_line=s.first_line)]
        assert parts == whole
        assert sum(s.lines for s in spans) == jsonl.count_lines(path)
