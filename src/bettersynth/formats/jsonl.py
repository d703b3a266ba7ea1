"""JSON lines: an index of byte ranges for shards, tolerant line reading, and plain writing."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_BLOCK_BYTES = 4 << 20
_FEED = ord("\n")


@dataclass(frozen=True, slots=True)
class LineRange:
    """A run of whole lines of one file: bytes ``start:stop``, the first of them line ``first_line`` (from 1)."""

    start: int
    stop: int
    first_line: int
    lines: int
    digest: str


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record, with its number and why; ``raw`` is the line as far as it can be shown."""

    line: int
    reason: str
    raw: str
    id: str = ""


def count_lines(path: Path) -> int:
    """Number of lines, an unterminated last one included."""
    lines, last = 0, b"\n"
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def split_lines(path: Path, *, lines_per_range: int, bytes_per_range: int = 1 << 62) -> list[LineRange]:
    """Cut a file into ranges of whole lines; depends on the file and these numbers alone.

    Args:
        lines_per_range: lines of a range, except for the last.
        bytes_per_range: a range ends earlier, with the line with which it reaches this size.
    """
    ranges: list[LineRange] = []
    start = position = lines = 0
    first, state = 1, xxhash.xxh3_128()
    is_open = False  # whether bytes of an unfinished line were read
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK_BYTES):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _FEED) + 1
            view, at, used = memoryview(block), 0, 0
            while used < len(ends):
                full = int(np.searchsorted(ends, start + bytes_per_range - (position - at)))
                count = max(1, min(lines_per_range - lines, len(ends) - used, full + 1 - used))
                stop = int(ends[used + count - 1])
                state.update(view[at:stop])
                position, at, lines, used = position + stop - at, stop, lines + count, used + count
                if lines == lines_per_range or position - start >= bytes_per_range:
                    ranges.append(LineRange(start, position, first, lines, state.hexdigest()))
                    start, first, lines, state = position, first + lines, 0, xxhash.xxh3_128()
            state.update(view[at:])
            position += len(block) - at
            is_open = at < len(block)
    if lines or is_open:
        ranges.append(LineRange(start, position, first, lines + is_open, state.hexdigest()))
    return ranges


def read_range(path: Path, span: LineRange) -> bytes:
    """The bytes of a range.

    Raises:
        DataError: the file is gone, or its bytes are not those that were indexed.
    """
    try:
        with path.open("rb") as handle:
            handle.seek(span.start)
            data = handle.read(span.stop - span.start)
    except OSError as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=error.strerror or str(error)) from error
    if xxhash.xxh3_128_hexdigest(data) != span.digest:
        raise DataError(
            t("the data file changed while it was being processed"),
            where=f"{path}:{span.first_line}",
            hint=t("run the command again; it will start from the changed file"),
        )
    return data


def parse_lines(data: bytes, *, first_line: int = 1) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """(line number, record or BadLine) for each line that is not blank. A bad line never stops the reading."""
    for number, _, record in parsed_lines(data, first_line=first_line):
        yield number, record


def parsed_lines(data: bytes, *, first_line: int = 1) -> Iterator[tuple[int, bytes, dict[str, Any] | BadLine]]:
    """As :func:`parse_lines`, with the line itself."""
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if first_line == 1 and lines:
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    loads = orjson.loads
    for number, line in enumerate(lines, first_line):
        try:
            record = loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip():
                yield number, line, BadLine(number, t("not valid JSON: {error}", error=error), show(line))
            continue
        if isinstance(record, dict):
            yield number, line, record
        else:
            got = type(record).__name__
            yield number, line, BadLine(number, t("not a JSON object but a {got}", got=got), show(line))


def show(line: bytes, limit: int = 10_000) -> str:
    """A line as text for messages: undecodable bytes escaped, cut at ``limit`` characters."""
    return line.decode("utf-8", "backslashreplace").strip()[:limit]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """Stream a .jsonl, .jsonl.gz or .jsonl.zst file line by line; see :func:`parse_lines`.

    Raises:
        DataError: the file is missing or is not what its name says.
    """
    try:
        with open_binary(path) as handle:
            for number, line in enumerate(handle, 1):
                yield from parse_lines(line, first_line=number)
    except (OSError, EOFError) as error:
        raise DataError(
            t("cannot read the data file"), where=str(path), got=getattr(error, "strerror", None) or str(error)
        ) from error


def text_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file that is small enough to hold; only a line feed ends one.

    ``str.splitlines`` also cuts at U+2028, U+0085 and others, which JSON texts hold as they are.

    Raises:
        DataError: the file is missing or is not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(t("file not found"), where=str(path), got=error.strerror) from error
    except UnicodeDecodeError as error:
        raise DataError(t("not UTF-8: {error}", error=error), where=str(path)) from error
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, decompressing it when its name ends in .gz or .zst."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), _BLOCK_BYTES)
    return path.open("rb")


@contextlib.contextmanager
def create_binary(path: Path, suffix: str) -> Iterator[Any]:
    """A file for writing, compressed when ``suffix`` is .gz or .zst; the same rows give the same bytes."""
    if suffix == ".zst":
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            yield stream
        return
    with path.open("wb") as file:
        if suffix == ".gz":  # without a name: gzip keeps that of the half-written file, which no two runs share
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                yield stream
        else:
            yield file


def dump_line(row: Mapping[str, Any]) -> bytes:
    """One row as a line of UTF-8 JSON, keys in the row's order, non-ASCII kept."""
    return orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    """Values of other formats that JSON does not know, as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(type(value).__name__)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows to a .jsonl, .jsonl.gz or .jsonl.zst file (whole or not at all); returns their number."""
    temp = path.with_name(f".{path.name}.tmp")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with create_binary(temp, path.suffix) as stream:
            for row in rows:
                stream.write(dump_line(row))
                count += 1
        temp.replace(path)
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(path), got=error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be unusable
            temp.unlink(missing_ok=True)
    return count
