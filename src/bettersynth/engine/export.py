"""From the last stage's shards to the files a user opens."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.engine import trace
from bettersynth.engine.jobs import BASE_SCHEMA, PARTIAL
from bettersynth.engine.shard import load_arrow
from bettersynth.engine.trace import TRACE_FILE, TraceRow
from bettersynth.formats.data_juicer import Tokens
from bettersynth.formats.jsonl import dump_line
from bettersynth.formats.write import ENDINGS, Row, WriteOptions, kind_of, stem_of, write_any
from bettersynth.ops.base import ID, IMAGES, KEY, RECORD, STATS, TEXT

META = "__dj__meta__"
QUARANTINE_FILE = "quarantine.jsonl"
_INTERNAL = frozenset([*BASE_SCHEMA.names])


@dataclass(frozen=True)
class ExportSettings:
    """How rows are written. ``name`` is the result file's name; ``shard_bytes`` 0 writes one file."""

    name: str
    text_key: str
    image_key: str
    keep_stats: bool
    num_steps: int
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
    return ExportSettings(
        *(name, recipe.text_key, keys.image_key, keys.keep_stats_in_res_ds, num_steps, kind, keys.export_shard_size)
    )


def export_rows(
    folder: Path, shards: Sequence[Path], settings: ExportSettings, roots: Sequence[str] = (), tokens: Tokens = Tokens()
) -> tuple[list[str], int]:
    """Write the result rows and their stats; returns the file names (data files first) and the number of rows.

    Args:
        roots: picture folder of each source file; needed by kinds that hold the pictures themselves.
    """
    stats_name = f"{stem_of(settings.name)}_stats.jsonl"
    is_plain = settings.kind == "jsonl" and not settings.shard_bytes
    spool = folder / (settings.name if is_plain else f".{settings.name}.rows")
    rows = stats_rows = 0
    files = array("i")
    with _whole_file(spool) as data, _whole_file(folder / stats_name) as stats_file:
        for path in shards:
            for record, stats, (key, _, _) in _records(path, settings):
                side: dict[str, Any] = {"__dj__stats__": stats} if stats else {}
                if META in record:  # what Data-Juicer's operators say of a row goes where its stats go
                    side[META] = record.pop(META)
                if settings.keep_stats:
                    record.update(side)
                data.write(dump_line(record))
                rows += 1
                if not is_plain:
                    files.append(int(key.partition(":")[0]))
                if side:
                    stats_file.write(dump_line({"__dj__stats__": {}, **side}))
                    stats_rows += 1
    names = [settings.name] if is_plain else _from_spool(folder, spool, files, settings, roots, tokens)
    if stats_rows:
        return [*names, stats_name], rows
    (folder / stats_name).unlink()
    return names, rows


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
    options = WriteOptions(settings.text_key, settings.image_key, tokens)
    try:
        for number in range(count):
            part = slice(number * rows // count, (number + 1) * rows // count)

            def some(part: slice = part) -> Iterator[Row]:
                with spool.open("rb") as handle:
                    for place, line in enumerate(islice(handle, part.start, part.stop), part.start):
                        record = orjson.loads(line)
                        root = Path(roots[files[place]]) if roots else folder
                        yield record, [root / image for image in record.get(settings.image_key) or ()]

            name = f"{stem}-{number:0{width}d}-of-{count:0{width}d}{ending}" if settings.shard_bytes else settings.name
            names += write_any(folder / name, settings.kind, some, options)
    finally:
        spool.unlink(missing_ok=True)
    return names


def export_trace(folder: Path, stage_traces: Sequence[Path], last: Sequence[Path], settings: ExportSettings) -> str:
    """Write the trace: events of all stages in order, then one ``kept`` row per result row with all its stats."""

    def tables() -> Iterator[Any]:
        for path in stage_traces:
            yield load_arrow(path)
        for path in last:
            kept = [
                TraceRow(key, record_id, settings.num_steps, "", "kept", scores=trace.scores_json(stats), image=image)
                for _, stats, (key, record_id, image) in _records(path, settings, with_record=False)
            ]
            yield trace.to_table(kept)

    temp = folder / f".{TRACE_FILE}"
    trace.write(temp, tables())
    temp.replace(folder / TRACE_FILE)
    return TRACE_FILE


def export_quarantine(folder: Path, markers: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Write every row that was set aside, in the order of the stages; returns the file name and the number of rows."""
    rows = [row for marker in markers for row in marker["quarantine"]]
    write_atomic(folder / QUARANTINE_FILE, b"".join(dump_line(row) for row in rows))
    return QUARANTINE_FILE, len(rows)


def _records(
    path: Path, settings: ExportSettings, *, with_record: bool = True
) -> Iterator[tuple[dict[str, Any], dict[str, Any], tuple[str, str, str]]]:
    """(record, stats, (key, id, first picture)) per row of a shard, in row order."""
    for batch in load_arrow(path).to_batches():
        names = [name for name in batch.schema.names if name not in _INTERNAL and not name.startswith((STATS, PARTIAL))]
        stat_names = [name for name in batch.schema.names if name.startswith(STATS)]
        for row in batch.to_pylist():
            stats = {name.removeprefix(STATS): row[name] for name in stat_names}
            images = row[IMAGES] or []
            parts = [row[name] for name in KEY]
            key = f"{parts[0]}:{parts[1]}" + (f":{parts[2]}" if parts[2] else "")
            record: dict[str, Any] = {}
            if with_record:
                record = orjson.loads(row[RECORD])
                assign(record, settings.text_key, row[TEXT])
                if images or settings.image_key in record:
                    record[settings.image_key] = images
                record.update({name: row[name] for name in names})
            yield record, stats, (key, row[ID], images[0] if images else "")


def assign(record: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted path, the way :func:`bettersynth.formats.data_juicer.nested` reads it."""
    target = record
    if key not in record:
        *parents, key = key.split(".")
        for part in parents:
            target = target.setdefault(part, {})
    target[key] = value


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when the block has ended well."""
    temp = path.with_name(f".{path.name}.tmp")
    try:
        with temp.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temp.replace(path)
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(path), got=error.strerror or str(error)) from error
    finally:
        temp.unlink(missing_ok=True)
