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
import pyarrow as pa

from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.engine import trace
from bettersynth.engine.arrow_files import load_arrow
from bettersynth.engine.jobs import BASE_SCHEMA, PARTIAL
from bettersynth.engine.trace import TRACE_FILE
from bettersynth.formats.data_juicer import Tokens
from bettersynth.formats.jsonl import dump_line
from bettersynth.formats.write import ENDINGS, Row, WriteOptions, kind_of, stem_of, write_any
from bettersynth.ops.base import IMAGES, KEY, RECORD, STATS, TEXT, Batch

META = "__dj__meta__"
QUARANTINE_FILE = "quarantine.jsonl"
META = "__dj__meta__"  # a column of JSON: what Data-Juicer's operators say of a row goes where its stats go
_INTERNAL = frozenset([*BASE_SCHEMA.names, META])


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
    folder: Path,
    shards: Sequence[Path],
    settings: ExportSettings,
    stage_traces: Sequence[Path] = (),
    roots: Sequence[str] = (),
    tokens: Tokens = Tokens(),
) -> tuple[list[str], int]:
    """Write the result rows, their stats and the trace; returns the file names (data files first) and the rows.

    The trace holds the events of all stages in order, then one ``kept`` row per result row with all its stats.

    Args:
        stage_traces: the events of every shard of every stage.
        roots: picture folder of each source file; needed by kinds that hold the pictures themselves.
    """
    stats_name = f"{stem_of(settings.name)}_stats.jsonl"
    is_plain = settings.kind == "jsonl" and not settings.shard_bytes
    spool = folder / (settings.name if is_plain else f".{settings.name}.rows")
    rows = stats_rows = 0
    files = array("i")
    trace_file, trace_temp = folder / TRACE_FILE, folder / f".{TRACE_FILE}"
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(_whole_file(spool))
        stats_file = stack.enter_context(_whole_file(folder / stats_name))
        events = stack.enter_context(trace.writer(trace_temp))
        for path in stage_traces:
            events(load_arrow(path))
        for path in shards:
            for batch in load_arrow(path).to_batches():
                scores = _scores(batch)
                data.writelines(_lines(batch, settings, scores))
                beside = _beside(batch, scores)
                stats_file.writelines(beside)
                stats_rows += len(beside)
                rows += batch.num_rows
                if not is_plain:
                    files.extend(batch.column(KEY[0]).to_pylist())
                events(_kept(batch, scores, settings))
    trace_temp.replace(trace_file)
    names = [settings.name] if is_plain else _from_spool(folder, spool, files, settings, roots, tokens)
    if stats_rows:
        return [*names, stats_name, TRACE_FILE], rows
    (folder / stats_name).unlink()
    return [*names, TRACE_FILE], rows


def _scores(batch: Batch) -> list[bytes] | None:
    """The stats of every row as JSON, or None when no step computed any."""
    names = [name for name in batch.schema.names if name.startswith(STATS)]
    if not names:
        return None
    plain = [name.removeprefix(STATS) for name in names]
    values = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    return [orjson.dumps(dict(zip(plain, row, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY) for row in values]


def _beside(batch: Batch, scores: list[bytes] | None) -> list[bytes]:
    """The lines of the stats file: none when no step said anything."""
    if META not in batch.schema.names:
        return [b'{"__dj__stats__":' + line + b"}\n" for line in scores or ()]
    metas = [(meta or "{}").encode() for meta in batch.column(META).to_pylist()]
    stats = scores or [b"{}"] * batch.num_rows
    pairs = zip(stats, metas, strict=True)
    return [b'{"__dj__stats__":' + line + b',"__dj__meta__":' + meta + b"}\n" for line, meta in pairs]


def _lines(batch: Batch, settings: ExportSettings, scores: list[bytes] | None) -> Iterator[bytes]:
    """The rows of a batch as lines: the record as it was read, with what the operators wrote."""
    names = [name for name in batch.schema.names if name not in _INTERNAL and not name.startswith((STATS, PARTIAL))]
    extra = [batch.column(name).to_pylist() for name in names]
    listed = (batch.column(name).to_pylist() for name in (RECORD, TEXT, IMAGES))
    metas = batch.column(META).to_pylist() if META in batch.schema.names else None
    is_flat = "." not in settings.text_key
    for row, (raw, text, images) in enumerate(zip(*listed, strict=True)):
        record = orjson.loads(raw)
        if is_flat:
            record[settings.text_key] = text
        else:
            assign(record, settings.text_key, text)
        if images or settings.image_key in record:
            record[settings.image_key] = images or []
        for name, values in zip(names, extra, strict=True):
            record[name] = values[row]
        if settings.keep_stats and scores is not None:
            record["__dj__stats__"] = orjson.Fragment(scores[row])
        if settings.keep_stats and metas is not None:
            record[META] = orjson.Fragment(metas[row] or "{}")
        yield dump_line(record)


def _kept(batch: Batch, scores: list[bytes] | None, settings: ExportSettings) -> pa.Table:
    """One ``kept`` event per row."""
    listed: Any = "" if scores is None else scores
    return trace.events_of(batch, range(batch.num_rows), step=settings.num_steps, action="kept", scores=listed)


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


def export_quarantine(folder: Path, markers: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Write every row that was set aside, in the order of the stages; returns the file name and the number of rows."""
    rows = [row for marker in markers for row in marker["quarantine"]]
    write_atomic(folder / QUARANTINE_FILE, b"".join(dump_line(row) for row in rows))
    return QUARANTINE_FILE, len(rows)


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
