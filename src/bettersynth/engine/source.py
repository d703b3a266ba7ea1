"""The frozen shard list: which lines of which files make up each shard, decided from the files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import xxhash

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.formats import jsonl, llava
from bettersynth.formats.jsonl import LineRange
from bettersynth.formats.parquet import read_parquet

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
_MIN_ROWS, _MAX_ROWS, _TARGET_SHARDS = 512, 8192, 64


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file. ``path`` is what is read (a copy as JSON lines for other formats), ``name`` what users see."""

    number: int
    path: str
    name: str
    image_root: str


@dataclass(frozen=True, slots=True)
class SourceShard:
    """A run of lines of one file. ``digest`` covers the lines and the sizes and times of the pictures they name."""

    number: int
    file: int
    span: LineRange
    digest: str


@dataclass(frozen=True)
class Source:
    """All input of a run. ``digest`` covers the contents of the lines, not the places of the files."""

    files: tuple[SourceFile, ...]
    shards: tuple[SourceShard, ...]
    digest: str
    lines: int


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The data files of a list of files and folders, folders sorted by name.

    Raises:
        ConfigError: a path does not exist, or a folder holds no data file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
            continue
        inside = (
            sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(_SUFFIXES)) if path.is_dir() else []
        )
        if not inside:
            problem = t("no data file in the folder") if path.is_dir() else t("no such file or folder")
            raise ConfigError(problem, where="dataset_path", got=str(path), expected=", ".join(_SUFFIXES))
        found.extend(inside)
    if not found:
        raise ConfigError(
            t("no data set is named"), where="dataset_path", hint=t("write dataset_path: FILE or give it with --set")
        )
    return found


def freeze(
    paths: Iterable[Path],
    *,
    work: Path,
    image_root: Path | None = None,
    text_key: str = "text",
    image_key: str = "images",
) -> Source:
    """Index the input. Files that are no plain JSON lines are copied to ``work`` as JSON lines first.

    Args:
        image_root: folder that relative picture paths start from; by default the folder of each file.

    Raises:
        ConfigError, DataError: missing or unreadable input.
    """
    files: list[SourceFile] = []
    shards: list[SourceShard] = []
    total = 0
    found = find_files(paths)
    readable = [_as_jsonl(path, number, work) for number, path in enumerate(found)]
    counts = [jsonl.count_lines(path) for path in readable]
    rows = max(_MIN_ROWS, min(_MAX_ROWS, -(-sum(counts) // _TARGET_SHARDS)))
    for number, (original, path) in enumerate(zip(found, readable, strict=True)):
        root = image_root or original.parent
        files.append(SourceFile(number, str(path.resolve()), original.name, str(root.resolve())))
        for span in jsonl.split_lines(path, lines_per_range=rows):
            digest = _picture_digest(path, span, root, image_key)
            shards.append(SourceShard(len(shards), number, span, digest))
            total += span.lines
    digest = digest_json([[shard.span.digest, shard.file, shard.span.first_line] for shard in shards])
    return Source(tuple(files), tuple(shards), digest, total)


def _picture_digest(path: Path, span: LineRange, root: Path, image_key: str) -> str:
    """Digest of a shard's lines and of size and time of every picture, so that a changed picture is noticed."""
    state = xxhash.xxh3_128(span.digest.encode())
    for _, record in jsonl.parse_lines(jsonl.read_range(path, span), first_line=span.first_line):
        images = record.get(image_key) if isinstance(record, dict) else None
        for image in images if isinstance(images, list) else ():
            try:
                stat = (root / str(image)).stat()
                state.update(f"{image}:{stat.st_size}:{stat.st_mtime_ns}".encode())
            except OSError:
                state.update(f"{image}:-".encode())
    return state.hexdigest()


def _as_jsonl(path: Path, number: int, work: Path) -> Path:
    """The file itself, or its copy as JSON lines in the work folder, remade when the original changes."""
    if path.name.endswith(".jsonl"):
        if not path.is_file():
            raise DataError(t("cannot read the data file"), where=str(path))
        return path
    stat = path.stat()
    stamp = {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    copy, mark = work / f"source-{number}.jsonl", work / f"source-{number}.json"
    if copy.is_file() and mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == stamp:
        return copy
    mark.unlink(missing_ok=True)
    jsonl.write_rows(copy, _rows(path)) if not path.name.endswith(".gz") else _decompress(path, copy)
    write_atomic(mark, json.dumps(stamp).encode())
    return copy


def _decompress(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with jsonl.open_binary(path) as source, copy.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
    except (OSError, EOFError) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error)) from error


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        return read_parquet(path)
    return _json_rows(path)


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


def describe(source: Source) -> dict[str, Any]:
    """The shard list as JSON, kept beside the results for people who look."""
    return {"files": [asdict(file) for file in source.files], "shards": [asdict(shard) for shard in source.shards]}
