"""Any data file from rows: the writer is chosen by the kind of result that a recipe asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.formats import llava
from bettersynth.formats.arrow import write_saved_dataset
from bettersynth.formats.columns import Columns
from bettersynth.formats.data_juicer import DEFAULT_TOKENS, Tokens
from bettersynth.formats.jsonl import create_binary, dump_line
from bettersynth.formats.lance import write_lance
from bettersynth.formats.table import table_line
from bettersynth.formats.webdataset import WebDatasetWriter

ENDINGS = {
    "jsonl": ".jsonl",
    "json": ".json",
    "parquet": ".parquet",
    "jsonl.gz": ".jsonl.gz",
    "jsonl.zst": ".jsonl.zst",
    "csv": ".csv",
    "tsv": ".tsv",
    "arrow": ".arrow",
    "webdataset": ".tar",
    "llava": ".json",
    "lance": ".lance",
}
Row = tuple[dict[str, Any], list[Path]]
"""A row and the places of its pictures."""


def kind_of(name: str) -> str | None:
    """The kind that a file name's ending stands for, or None.

    >>> kind_of("res.jsonl.gz"), kind_of("res.tar"), kind_of("res")
    ('jsonl.gz', 'webdataset', None)
    """
    fitting = [kind for kind, ending in ENDINGS.items() if name.endswith(ending)]
    return max(fitting, key=lambda kind: len(ENDINGS[kind]), default=None) if fitting else None


def stem_of(name: str) -> str:
    """A file name without the ending of its kind."""
    kind = kind_of(name)
    return name.removesuffix(ENDINGS[kind]) if kind else name


@dataclass(frozen=True)
class WriteOptions:
    """Names of the text and picture columns, and the special tokens in force."""

    text_key: str = "text"
    image_key: str = "images"
    tokens: Tokens = DEFAULT_TOKENS


def write_any(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> list[str]:
    """Write rows as one file (or folder, for ``arrow`` and ``lance``), whole or not at all.

    Args:
        rows: gives the rows from the start each time it is called; some kinds look at all of them twice.

    Returns:
        Names of the files with reproducible bytes, relative to the file's folder.

    Raises:
        DataError: the disk is full, or the rows do not fit the kind. MissingExtraError: a package is missing.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "lance":
            write_lance(path, Columns(lambda: (row for row, _ in rows())))
            return []
        _WRITERS[kind](temp, kind, rows, options)
        if temp.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            temp.replace(path)
            return [f"{path.name}/{inside.name}" for inside in sorted(path.iterdir())]
        with temp.open("rb+") as handle:
            os.fsync(handle.fileno())
        temp.replace(path)
        return [path.name]
    except OSError as error:
        raise DataError(
            t("cannot write the file"),
            where=str(path),
            got=error.strerror or str(error),
            hint=t("choose a writable output folder with free space"),
        ) from error
    except DataError as error:
        error.where = error.where or str(path)
        raise
    finally:
        if temp.is_dir():
            shutil.rmtree(temp, ignore_errors=True)
        else:
            temp.unlink(missing_ok=True)


def _lines(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    with create_binary(path, ENDINGS[kind][6:] or ".jsonl") as stream:
        for row, _ in rows():
            stream.write(dump_line(row))


def _json(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    with path.open("wb") as stream:
        mark = b"[\n"
        for row, _ in rows():
            stream.write(mark + dump_line(row)[:-1])
            mark = b",\n"
        stream.write(b"\n]\n" if mark != b"[\n" else b"[]\n")


def _llava(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    try:
        records = llava.dj_to_llava(
            (row for row, _ in rows()),
            restore_questions=False,
            tokens=options.tokens,
            text_key=options.text_key,
            image_key=options.image_key,
        )
    except DataError as error:
        if error.hint is not None:  # only a text without turns has one
            way = "bettersynth convert dj-to-llava --input ROWS.jsonl --output FILE.json"
            error.hint = t("captions have no questions: write JSON lines, then run {command}", command=way)
        raise
    llava.write_llava(path, records)


def _table(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    mark = "\t" if kind == "tsv" else ","
    names = list(dict.fromkeys(name for row, _ in rows() for name in row))
    with path.open("wb") as stream:
        stream.write(table_line({name: name for name in names}, names, mark))
        for row, _ in rows():
            stream.write(table_line(row, names, mark))


def _parquet(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    import pyarrow.parquet as pq  # takes long to import

    columns = Columns(lambda: (row for row, _ in rows()), empty_objects=False)
    with pq.ParquetWriter(path, columns.schema, compression="zstd") as writer:
        for table in columns.tables():
            writer.write_table(table)


def _arrow(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    write_saved_dataset(path, Columns(lambda: (row for row, _ in rows())))


def _webdataset(path: Path, kind: str, rows: Callable[[], Iterable[Row]], options: WriteOptions) -> None:
    with path.open("wb") as stream:
        writer = WebDatasetWriter(stream, text_key=options.text_key, image_key=options.image_key)
        for row, images in rows():
            writer.write(row, images)
        writer.close()


_WRITERS: dict[str, Callable[[Path, str, Callable[[], Iterable[Row]], WriteOptions], None]] = {
    **dict.fromkeys(("jsonl", "jsonl.gz", "jsonl.zst"), _lines),
    **dict.fromkeys(("csv", "tsv"), _table),
    "json": _json,
    "llava": _llava,
    "parquet": _parquet,
    "arrow": _arrow,
    "webdataset": _webdataset,
}
