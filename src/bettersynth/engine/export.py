"""From the last stage's shards to the files a user opens."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import xxhash

from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.engine import trace
from bettersynth.engine.arrow_files import damaged, read_whole
from bettersynth.engine.jobs import LineSettings
from bettersynth.engine.settings import line_settings
from bettersynth.engine.trace import TRACE_FILE
from bettersynth.formats.data_juicer import Tokens
from bettersynth.formats.jsonl import dump_line
from bettersynth.formats.write import ENDINGS, Row, WriteOptions, kind_of, stem_of, write_any

QUARANTINE_FILE = "quarantine.jsonl"
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class ExportSettings:
    """How rows are written. ``name`` is the result file's name; ``shard_bytes`` 0 writes one file."""

    name: str
    lines: LineSettings
    kind: str = "jsonl"
    shard_bytes: int = 0


def export_settings(recipe: Recipe, num_steps: int) -> ExportSettings:
    """How a recipe wants its result written.

    Raises:
        ConfigError: ``export_path`` has no ending that says the kind, and ``export_type`` is not given.
    """
    keys = recipe.keys
    name = keys.export_path.rstrip("/").rpartition("/")[2] if keys.export_path else "processed_data.jsonl"
    kind = keys.export_type or kind_of(name)
    if kind is None:
        raise ConfigError(
            t("the name of the result does not say its kind"),
            where=recipe.document.where(("export_path",)),
            got=name,
            expected=", ".join(dict.fromkeys(ENDINGS.values())),
            hint=t("give the name one of these endings, or set export_type"),
        )
    if keys.export_type and kind_of(name) is not None and not name.endswith(ENDINGS[kind]):
        name = stem_of(name) + ENDINGS[kind]  # a Parquet file called .jsonl can be read by nobody
    return ExportSettings(name, line_settings(recipe, num_steps), kind, keys.export_shard_size)


class ResultWriter:
    """Puts the result together from the shards' files, in their order, while later shards are still worked on.

    Use it as a context manager; :meth:`finish` gives the files their names, and without it nothing stays.

    Args:
        folder: result folder.
        roots: picture folder of each source file; needed by kinds that hold the pictures themselves.
    """

    def __init__(
        self, folder: Path, settings: ExportSettings, roots: Sequence[str] = (), tokens: Tokens = Tokens()
    ) -> None:
        self._folder, self._settings, self._roots, self._tokens = folder, settings, roots, tokens
        self._is_plain = settings.kind == "jsonl" and not settings.shard_bytes
        self._spool = folder / (settings.name if self._is_plain else f".{settings.name}.rows")
        self._stats = folder / f"{stem_of(settings.name)}_stats.jsonl"
        self._trace_temp = folder / f".{TRACE_FILE}"
        self._files = array("i")
        self.rows = 0
        self._has_stats = False

    def __enter__(self) -> ResultWriter:
        with contextlib.ExitStack() as stack:
            stack.callback(self._trace_temp.unlink, missing_ok=True)
            self._parts = [(stack.enter_context(_half_written(path)), path) for path in (self._spool, self._stats)]
            self._events = trace.Writer(self._trace_temp, self._stats.name)
            stack.callback(self._events.abandon)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def add_trace(self, path: Path, marker: Mapping[str, Any]) -> None:
        """What happened in a shard of a stage; stages in order, and the shards of each in order.

        Raises:
            DataError: the events are gone or damaged; the shard will be done again.
        """
        self._events.add(read_whole(path, marker["trace"]))

    def add_rows(self, path: Path, marker: Mapping[str, Any], file: int) -> None:
        """The lines of a shard of the last stage.

        Args:
            marker: the shard's marker. file: number of the source file that its rows come from.

        Raises:
            DataError: the lines are gone or damaged; they will be made again.
        """
        state = xxhash.xxh3_128()
        try:
            with path.open("rb") as source:
                for size, (target, place) in zip(marker["lines"], self._parts, strict=True):
                    self._has_stats |= size > 0 and place is self._stats
                    while size > 0 and (block := source.read(min(size, _BLOCK_BYTES))):
                        state.update(block)
                        with _writing(place):
                            target.write(block)
                        size -= len(block)
        except FileNotFoundError as error:
            raise DataError(t("an intermediate result is gone"), where=str(path), hint=t("run it again")) from error
        if state.hexdigest() != marker["digest"]:
            raise damaged(path)
        self.rows += marker["rows"]
        if not self._is_plain:
            self._files.extend([file] * marker["rows"])

    def finish(self) -> list[str]:
        """End the files and name them; returns the names: data files first, stats if there are any, the trace."""
        self._events.finish()
        for handle, path in self._parts:
            _name(handle, path)
        self._trace_temp.replace(self._folder / TRACE_FILE)
        names = [self._settings.name]
        if not self._is_plain:
            names = _from_spool(self._folder, self._spool, self._files, self._settings, self._roots, self._tokens)
        if self._has_stats:
            return [*names, self._stats.name, TRACE_FILE]
        self._stats.unlink()
        return [*names, TRACE_FILE]


def _from_spool(
    folder: Path, spool: Path, files: Sequence[int], settings: ExportSettings, roots: Sequence[str], tokens: Tokens
) -> list[str]:
    """Turn the rows, kept as JSON lines, into files of another kind or into several files; the lines are removed."""
    rows, names = len(files), []
    count = 1
    if settings.shard_bytes:
        count = max(1, min(rows, spool.stat().st_size // settings.shard_bytes + 1))
    width = len(str(count)) + 1
    stem, ending = stem_of(settings.name), settings.name.removeprefix(stem_of(settings.name))
    options = WriteOptions(settings.lines.text_key, settings.lines.image_key, tokens)
    try:
        for number in range(count):
            part = slice(number * rows // count, (number + 1) * rows // count)

            def some(part: slice = part) -> Iterator[Row]:
                with spool.open("rb") as handle:
                    for place, line in enumerate(islice(handle, part.start, part.stop), part.start):
                        record = orjson.loads(line)
                        root = Path(roots[files[place]]) if roots else folder
                        yield record, [root / image for image in record.get(settings.lines.image_key) or ()]

            name = f"{stem}-{number:0{width}d}-of-{count:0{width}d}{ending}" if settings.shard_bytes else settings.name
            names += write_any(folder / name, settings.kind, some, options)
    finally:
        spool.unlink(missing_ok=True)
    return names


def export_quarantine(folder: Path, markers: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Write every row that was set aside, in the order of the stages; returns the file name and the number of rows."""
    rows = [row for marker in markers for row in marker["quarantine"]]
    write_atomic(folder / QUARANTINE_FILE, b"".join(dump_line(row) for row in rows))
    return QUARANTINE_FILE, len(rows)


@contextlib.contextmanager
def _half_written(path: Path) -> Iterator[BinaryIO]:
    """A file beside its later place; what has not been named when the block ends is removed."""
    temp = _temp(path)
    try:
        with _writing(path):
            handle = temp.open("wb")
        try:
            yield handle
        finally:
            with contextlib.suppress(OSError):  # a full disk, which has been told already
                handle.close()
    finally:
        temp.unlink(missing_ok=True)


def _name(handle: BinaryIO, path: Path) -> None:
    """Make a half written file durable and give it its name."""
    with _writing(path):
        handle.flush()
        os.fsync(handle.fileno())
        handle.close()
        _temp(path).replace(path)


def _temp(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(path), got=error.strerror or str(error)) from error
