"""The frozen shard list: which lines of which files make up each shard, decided from the files alone."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import canonical_json, digest_json
from bettersynth.core.lang import t
from bettersynth.formats import jsonl
from bettersynth.formats.jsonl import LineRange
from bettersynth.formats.pictures import PictureFolder
from bettersynth.formats.read import LINES, ReadOptions, data_files, read_any
from bettersynth.formats.remote import fetch

if TYPE_CHECKING:  # workers need no recipe, and what reads one takes long to import
    from bettersynth.config.recipe import Input

_MAX_ROWS = 8192
# (shards wanted, fewest rows of one): where no picture is decoded rows are cheap, and a shard has a price of its own.
_PICTURE_SHARDS, _TEXT_SHARDS = (64, 128), (16, 1024)
_MAX_BYTES = 32 << 20  # a worker holds a shard's lines several times over
_LOOK_BYTES = 1 << 16
_SHUFFLE_SEED = 42  # Data-Juicer's, so that the same rows are drawn


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file. ``path`` is what is read (a copy as JSON lines for other formats), ``name`` what users see.

    ``stamps`` holds path, size and time of the original files, so that a plan can tell whether they changed;
    ``left_out`` what they hold beside rows: members of an archive by their endings, and how many.
    """

    number: int
    path: str
    name: str
    image_root: str
    stamps: tuple[tuple[str, int, int], ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()


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

    @property
    def left_out(self) -> dict[str, int]:
        """What the files hold beside rows, see :class:`SourceFile`."""
        counts: Counter[str] = Counter()
        for kind, count in (entry for file in self.files for entry in file.left_out):
            counts[kind] += count
        return dict(sorted(counts.items()))


def find_files(paths: Iterable[Path], options: ReadOptions | None = None) -> list[Path]:
    """The data files of a list of files and folders, folders sorted by name.

    Raises:
        ConfigError: a path does not exist, or a folder holds no data file.
    """
    found = [file for path in paths for file in data_files(path, options or ReadOptions())]
    if not found:
        raise ConfigError(
            t("no data set is named"), where="dataset_path", hint=t("write dataset_path: FILE or give it with --set")
        )
    return found


def freeze(
    inputs: Iterable[Input],
    *,
    work: Path,
    image_root: Path | None = None,
    options: ReadOptions | None = None,
    decodes: bool = True,
) -> Source:
    """Index the input. Files that are no plain JSON lines are copied to ``work`` as JSON lines first.

    Args:
        image_root: folder that relative picture paths start from; by default the folder of each file. Pictures that
            a file holds itself are where they were written.
        decodes: whether more than the header of a picture is read; shards then hold fewer rows.

    Raises:
        ConfigError, DataError: missing or unreadable input.
    """
    options = options or ReadOptions()
    files: list[SourceFile] = []
    names: set[str] = set()
    for source in inputs:
        local = fetch(source.place, work / "remote", source.source)
        parts = [
            _as_jsonl(path, len(files) + place, work, options, _new_name(path.stem, names), image_root)
            for place, path in enumerate(find_files([local], with_split(options, source)))
        ]
        if source.take is not None or source.limit is not None:
            parts = _sample(parts, source, len(files), work)
        files += [replace(part, number=len(files) + place) for place, part in enumerate(parts)]
    if not files:
        find_files([])
    rows = _rows_per_shard([Path(file.path) for file in files], options.image_key, decodes=decodes)
    shards: list[SourceShard] = []
    total = 0
    for file in files:
        for span in jsonl.split_lines(Path(file.path), lines_per_range=rows, bytes_per_range=_MAX_BYTES):
            digest = _picture_digest(Path(file.path), span, Path(file.image_root), options.image_key)
            shards.append(SourceShard(len(shards), file.number, span, digest))
            total += span.lines
    digest = digest_json([[shard.span.digest, shard.file, shard.span.first_line] for shard in shards])
    return Source(tuple(files), tuple(shards), digest, total)


def _rows_per_shard(paths: list[Path], image_key: str, *, decodes: bool) -> int:
    """Few enough that workers share the work and little is lost when one dies, enough that a shard's price is small."""
    counts = [jsonl.count_lines(path) for path in paths]
    is_slow = decodes and any(_names_pictures(path, image_key) for path in paths)
    wanted, fewest = _PICTURE_SHARDS if is_slow else _TEXT_SHARDS
    return max(fewest, min(_MAX_ROWS, -(-sum(counts) // wanted)))


def _names_pictures(path: Path, image_key: str) -> bool:
    with path.open("rb") as handle:
        return b'"' + image_key.encode() + b'"' in handle.read(_LOOK_BYTES)


def with_split(options: ReadOptions, source: Input) -> ReadOptions:
    """The options with the split that this source names."""
    split = source.source.split if source.source is not None else None
    return replace(options, split=split) if split else options


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Path, size in bytes and time of change in nanoseconds; zeros when it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return str(path.resolve()), 0, 0
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _sample(parts: list[SourceFile], source: Input, number: int, work: Path) -> list[SourceFile]:
    """Draw rows as Data-Juicer does: shuffled with a fixed seed, from the start again when there are too few.

    Files of one folder become one file in drawn order; ``limit`` alone keeps the first rows.
    """
    places, positions = array("q"), array("q")  # numbers only, as there may be millions of rows
    for place, part in enumerate(parts):
        with open(part.path, "rb") as handle:
            position = 0
            for line in handle:
                if line.strip():
                    places.append(place)
                    positions.append(position)
                position += len(line)
    rows = len(places[: source.limit])
    order = np.arange(rows)
    if source.take is not None:
        order = np.random.default_rng(_SHUFFLE_SEED).permutation(rows)
        order = np.resize(order, source.take) if rows else order
    roots = dict.fromkeys(part.image_root for part in parts)
    drawn = []
    for group, root in enumerate(roots):
        copy = work / f"source-{number + group}-drawn.jsonl"
        chosen = ((places[row], positions[row]) for row in order if parts[places[row]].image_root == root)
        _copy_lines(copy, [Path(part.path) for part in parts], chosen)
        stamps = tuple(stamp for part in parts for stamp in part.stamps)
        left_out = tuple(entry for part in parts if part.image_root == root for entry in part.left_out)
        drawn.append(SourceFile(number + group, str(copy.resolve()), parts[0].name, root, stamps, left_out))
    return drawn


def _copy_lines(copy: Path, paths: list[Path], chosen: Iterable[tuple[int, int]]) -> None:
    temp = copy.with_name(f".{copy.name}")
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(path.open("rb")) for path in paths]
        with temp.open("wb") as target:
            for place, position in chosen:
                handles[place].seek(position)
                target.write(handles[place].readline().rstrip(b"\r\n") + b"\n")
    if not copy.is_file() or not filecmp.cmp(temp, copy, shallow=False):
        temp.replace(copy)
    temp.unlink(missing_ok=True)


def _picture_digest(path: Path, span: LineRange, root: Path, image_key: str) -> str:
    """Digest of a shard's lines and of size and time of every picture, so that a changed picture is noticed."""
    state = xxhash.xxh3_128(span.digest.encode())
    data = jsonl.read_range(path, span)
    if b'"' + image_key.encode() + b'"' not in data:  # most text has no pictures, and parsing it takes time
        return state.hexdigest()
    folder = f"{root}{os.sep}"
    for _, record in jsonl.parse_lines(data, first_line=span.first_line):
        images = record.get(image_key) if isinstance(record, dict) else None
        for image in map(str, images) if isinstance(images, list) else ():
            try:
                stat = os.stat(image if image.startswith(os.sep) else folder + image)
                state.update(f"{image}:{stat.st_size}:{stat.st_mtime_ns}".encode())
            except OSError:
                state.update(f"{image}:-".encode())
    return state.hexdigest()


def _new_name(stem: str, names: set[str]) -> str:
    """A folder name for the pictures of one more file: files of one name (in several folders) must not share it."""
    name, times = stem, 1
    while name in names:
        times += 1
        name = f"{stem}-{times}"
    names.add(name)
    return name


def _as_jsonl(
    path: Path, number: int, work: Path, options: ReadOptions, name: str, image_root: Path | None
) -> SourceFile:
    """The file itself, or its copy as JSON lines in the work folder, remade when the original changes.

    Pictures that the file holds are written to ``images/NAME`` beside the result, and rows name them from there.
    """
    beside = (path.parent if image_root is None else image_root).resolve()
    try:
        is_lines = path.name.endswith(".jsonl") or (path.name.endswith(".json") and _starts_with_object(path))
    except OSError as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=error.strerror or str(error)) from error
    stamps = (stamp_of(path),)
    if is_lines:
        return SourceFile(number, str(path.resolve()), path.name, str(beside), stamps)
    stamp = {"original": list(stamps[0]), "options": asdict(options), "pictures": name, "beside": str(beside)}
    copy, mark = work / f"source-{number}.jsonl", work / f"source-{number}.json"
    known = _known(copy, mark, stamp)
    if known is None:
        mark.unlink(missing_ok=True)
        pictures = PictureFolder(work.parent, f"images/{name}", beside)
        left_out: Counter[str] = Counter()
        if path.name.endswith(jsonl_endings()):
            _decompress(path, copy)
            if ".json." in path.name and not _starts_with_object(copy):
                whole = copy.with_suffix(".list.json")
                copy.replace(whole)
                jsonl.write_rows(copy, read_any(whole, options, pictures))
                whole.unlink()
        else:
            jsonl.write_rows(copy, read_any(path, options, pictures, left_out))
        folder = pictures.root / pictures.name
        root = str(work.parent.resolve() if folder.is_dir() and path.suffix != ".gz" else beside)
        known = root, sorted(left_out.items())
        write_atomic(mark, canonical_json({**stamp, "root": root, "left_out": known[1]}))
    root, counts = known
    return SourceFile(number, str(copy.resolve()), path.name, root, stamps, tuple((kind, n) for kind, n in counts))


def jsonl_endings() -> tuple[str, ...]:
    """Endings of compressed JSON lines."""
    return tuple(ending for ending in LINES if ending != ".jsonl")


def _known(copy: Path, mark: Path, stamp: dict[str, Any]) -> tuple[str, list[Any]] | None:
    """The picture root, and what was left out, as noted beside a copy that is still good; or None."""
    if not copy.is_file() or not mark.is_file():
        return None
    noted = dict(json.loads(mark.read_text(encoding="utf-8")))
    root, left_out = noted.pop("root", None), noted.pop("left_out", None)
    is_good = root and left_out is not None and noted == json.loads(canonical_json(stamp))
    return (str(root), left_out) if is_good else None


def _starts_with_object(path: Path) -> bool:
    """Whether a .json file holds JSON lines rather than one list."""
    with path.open("rb") as handle:
        return handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def _decompress(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with jsonl.open_binary(path) as source, copy.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
    except (OSError, EOFError) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error)) from error


def describe(source: Source) -> dict[str, Any]:
    """The shard list as JSON, kept beside the results for people who look."""
    return {"files": [asdict(file) for file in source.files], "shards": [asdict(shard) for shard in source.shards]}
