"""Intermediate results on disk: Arrow IPC files, whole or not at all, read column by column; and joined streams."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops.base import Batch

# LZ4 is faster than zstd, most of all to read. Every process works on a shard of its own, so threads only interrupt it.
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def concat(batches: list[Batch]) -> Batch:
    """One batch of several. A column that only some have is filled with nulls (a failed row may miss new stats)."""
    whole = pa.concat_tables([pa.Table.from_batches([batch]) for batch in batches], promote_options="permissive")
    combined = whole.combine_chunks().to_batches()
    return combined[0] if combined else pa.RecordBatch.from_pylist([], schema=whole.schema)


def write_arrow(path: Path, batch: Batch) -> str:
    """Write Arrow IPC: temp, fsync, rename; returns the digest."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=_LZ4) as writer:
        writer.write_batch(batch)
    return write_whole(path, sink.getvalue())


def write_whole(path: Path, *parts: Any) -> str:
    """Write a file of some byte buffers, one after the other: temp, fsync, rename; returns the digest."""
    state = xxhash.xxh3_128()
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temp.open("wb") as handle:
            for part in parts:
                state.update(part)
                handle.write(part)
            handle.flush()
            os.fsync(handle.fileno())
        temp.replace(path)  # the folder is synced with the marker, which is written after this
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        raise unwritable(error, path) from error
    return state.hexdigest()


def write_at_once(path: Path, data: Any) -> str:
    """Write a file under its own name and do not wait for the disk; returns the digest.

    A kill or a power cut may leave a part of it: for files whose size and digest stand in a marker, written later.
    """
    try:
        with path.open("wb", buffering=0) as handle:
            left = memoryview(data)
            while left:
                left = left[handle.write(left) :]
    except OSError as error:
        raise unwritable(error, path) from error
    return xxhash.xxh3_128_hexdigest(data)


def unwritable(error: OSError, path: Path | None = None) -> DataError:
    """A failed write as a message: what to do, and that nothing finished is lost."""
    return DataError(
        t("cannot write; finished parts are kept"),
        where=str(path or error.filename or "") or None,
        got=error.strerror or str(error),
        hint=t("make room or the folder writable, then run the same command again to continue"),
    )


def load_arrow(path: Path, digest: str, wanted: Callable[[str], bool] = bool) -> pa.Table:
    """Read a committed intermediate file, or those of its columns that are wanted.

    Raises:
        DataError: the file is gone or is not the one of this digest; the next run makes it again.
    """
    return read_columns(read_whole(path, digest), wanted)


def read_whole(path: Path, digest: str) -> bytes:
    """The bytes of a committed intermediate file.

    Raises:
        DataError: the file is gone or is not the one of this digest; the next run makes it again.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(t("an intermediate result is gone"), where=str(path), hint=t("run it again")) from error
    if xxhash.xxh3_128_hexdigest(data) != digest:
        raise damaged(path)
    return data


def damaged(path: Path) -> DataError:
    """What to say of a damaged intermediate file; its shard is forgotten, so that the next run makes it again."""
    path.with_suffix(".json").unlink(missing_ok=True)
    return DataError(t("an intermediate result is damaged"), where=str(path), hint=t("run it again"))


def read_columns(data: bytes, wanted: Callable[[str], bool]) -> pa.Table:
    """A table from Arrow IPC bytes; columns that are not wanted are not decompressed."""
    with pa.ipc.open_file(data) as reader:
        places = [place for place, name in enumerate(reader.schema.names) if wanted(name)]
    with pa.ipc.open_file(data, options=pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)) as reader:
        return reader.read_all()


def message(batch: Batch) -> pa.Buffer:
    """A batch as it stands in an Arrow stream, without the schema before it and :data:`STREAM_END` behind it.

    A stream is nothing but its schema, such messages and its end, so streams are joined without compressing again.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_LZ4) as stream:
        stream.write_batch(batch)
    return sink.getvalue()[len(batch.schema.serialize()) : -len(STREAM_END)]
