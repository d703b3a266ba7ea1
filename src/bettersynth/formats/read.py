"""Any data file as a stream of rows: the reader is chosen by the name's ending."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.formats import llava
from bettersynth.formats.arrow import is_saved_dataset, read_arrow, saved_files
from bettersynth.formats.lance import read_lance
from bettersynth.formats.parquet import read_parquet
from bettersynth.formats.pictures import PictureFolder
from bettersynth.formats.table import read_table
from bettersynth.formats.webdataset import read_webdataset

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")
SUFFIXES = (*LINES, ".json", ".parquet", ".csv", ".tsv", ".tar", ".arrow", ".lance")


@dataclass(frozen=True)
class ReadOptions:
    """How rows are read.

    Args:
        text_keys: text columns; the first is written by formats that have a text of their own.
        image_key, bytes_key: columns of picture paths and of encoded pictures.
        delimiter, columns: for CSV and TSV.
        split: which split of a saved data set.
        suffixes: which endings to take from folders; all known ones by default.
    """

    text_keys: tuple[str, ...] = ("text",)
    image_key: str = "images"
    bytes_key: str = "image_bytes"
    delimiter: str | None = None
    columns: tuple[str, ...] | None = None
    split: str | None = None
    suffixes: tuple[str, ...] = field(default=SUFFIXES)


def data_files(path: Path, options: ReadOptions) -> list[Path]:
    """The data files that a path stands for: itself, those of a saved data set, or of a folder (sorted by name).

    Of a folder that this program made only the rows count, not the stats, traces and set-aside rows beside them.

    Raises:
        ConfigError: there is nothing, or the file's ending is not known.
    """
    expected = ", ".join(options.suffixes)
    if path.suffix == ".lance" and path.is_dir():
        return [path]
    if path.is_dir() and is_saved_dataset(path):
        return saved_files(path, options.split)
    if path.is_dir() and (names := _of_result(path)):
        return [file for name in names for file in data_files(path / name, options)]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(options.suffixes))
        found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if not found:
            raise ConfigError(t("no data file in the folder"), where=str(path), expected=expected)
        return found
    if not path.is_file():
        raise ConfigError(t("no such file or folder"), where=str(path), hint=nearest_file(path))
    if not path.name.endswith(SUFFIXES):
        raise ConfigError(t("unknown kind of data file"), where=str(path), expected=expected)
    return [path]


def _of_result(folder: Path) -> list[str]:
    """Names of the files or folders with rows, of a folder that holds a processed data set."""
    if not Artifact.exists(folder):
        return []
    made = Artifact.load(folder)
    if made.kind != "dataset" or "data" not in made.facts:
        return []
    name = str(made.facts["data"])
    names = [name] if (folder / name).is_dir() else [str(file) for file in made.facts.get("data_files", [name])]
    return names if all((folder / name).exists() for name in names) else []


def nearest_file(path: Path) -> str:
    """A hint for a place that is not there: its nearest neighbour, or how to find out what is."""
    folder = path.parent
    if not folder.is_dir():
        return t("there is no folder {folder} either", folder=folder)
    stems = {item.name.partition(".")[0]: item.name for item in folder.iterdir()}  # endings are alike anyway
    close = difflib.get_close_matches(path.name.partition(".")[0], list(stems), n=1)
    if close:
        return t("did you mean '{name}'?", name=stems[close[0]])
    return t("see what is there with: ls {folder}", folder=folder)


def read_any(
    path: Path, options: ReadOptions, pictures: PictureFolder, left_out: Counter[str] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Rows of a file that is not made of JSON lines. Encoded pictures are written into the picture folder.

    Args:
        left_out: counts what the file holds beside rows, see :func:`read_webdataset`.

    Raises:
        DataError: the file cannot be read.
    """
    names = {"text_key": options.text_keys[0], "image_key": options.image_key}
    readers: dict[str, Callable[[], Iterator[Any]]] = {
        ".parquet": lambda: read_parquet(path),
        ".arrow": lambda: read_arrow(path),
        ".lance": lambda: read_lance(path),
        ".csv": lambda: _table(path, options),
        ".tsv": lambda: _table(path, options),
        ".tar": lambda: read_webdataset(path, pictures, **names, left_out=left_out),
        ".json": lambda: _json_rows(path),
    }
    for number, row in enumerate(readers[path.suffix](), 1):
        if isinstance(row, dict):
            row = pictures.unpack(row, number, image_key=options.image_key, bytes_key=options.bytes_key)
        yield row


def _table(path: Path, options: ReadOptions) -> Iterator[dict[str, Any]]:
    return read_table(path, delimiter=options.delimiter, columns=options.columns, texts=options.text_keys)


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a JSON list: LLaVA records become Data-Juicer rows, other objects are taken as they are."""
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(t("not valid JSON: {error}", error=error), where=str(path)) from error
    if not isinstance(data, list):
        raise DataError(t("not a JSON list"), where=str(path), got=type(data).__name__, expected="[{...}, ...]")
    for record in data:
        if isinstance(record, dict) and "conversations" in record and llava.record_problem(record) is None:
            yield from llava.llava_to_dj([record])
        else:
            yield record
