"""The rows of a shard as the lines that a user opens: written by whoever works on the last stage, joined by the parent.

Light to import, because every worker process does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from bettersynth.engine.jobs import BASE_SCHEMA, PARTIAL, LineSettings
from bettersynth.engine.trace import scores_json
from bettersynth.formats.jsonl import dump_line
from bettersynth.ops.base import IMAGES, RECORD, STATS, TEXT, Batch

META = "__dj__meta__"  # a column of JSON: what Data-Juicer's operators say of a row goes where its stats go
_SCORES = "__dj__stats__"
_INTERNAL = frozenset([*BASE_SCHEMA.names, META])


def lines_of(batch: Batch, settings: LineSettings) -> tuple[bytes, bytes]:
    """The rows as JSON lines, and the lines of the stats file (empty when no step said anything)."""
    scores = _scores(batch)
    return b"".join(_lines(batch, settings, scores)), b"".join(_beside(batch, scores))


def _scores(batch: Batch) -> list[bytes] | None:
    """The stats of every row as JSON, or None when no step computed any."""
    names = [name for name in batch.schema.names if name.startswith(STATS)]
    return scores_json({name.removeprefix(STATS): batch.column(name) for name in names}) if names else None


def _beside(batch: Batch, scores: list[bytes] | None) -> list[bytes]:
    """The lines of the stats file: none when no step said anything."""
    if META not in batch.schema.names:
        return [b'{"__dj__stats__":' + line + b"}\n" for line in scores or ()]
    metas = [(meta or "{}").encode() for meta in batch.column(META).to_pylist()]
    stats = scores or [b"{}"] * batch.num_rows
    pairs = zip(stats, metas, strict=True)
    return [b'{"__dj__stats__":' + line + b',"__dj__meta__":' + meta + b"}\n" for line, meta in pairs]


def _lines(batch: Batch, settings: LineSettings, scores: list[bytes] | None) -> Iterator[bytes]:
    """The rows of a batch as lines: the record as it was read, with what the operators wrote."""
    names = [name for name in batch.schema.names if name not in _INTERNAL and not name.startswith((STATS, PARTIAL))]
    extra = [batch.column(name).to_pylist() for name in names]
    listed = (batch.column(name).to_pylist() for name in (RECORD, TEXT, IMAGES))
    metas = batch.column(META).to_pylist() if META in batch.schema.names else None
    is_flat = "." not in settings.text_key
    for row, (raw, text, images) in enumerate(zip(*listed, strict=True)):
        record = orjson.loads(raw)
        # As in Data-Juicer, what an earlier run said of the row stays only where stats are kept at all.
        before = {name: record.pop(name, None) for name in (_SCORES, META)}
        if is_flat:
            record[settings.text_key] = text
        else:
            assign(record, settings.text_key, text)
        if images or settings.image_key in record:
            record[settings.image_key] = images or []
        for name, values in zip(names, extra, strict=True):
            record[name] = values[row]
        if settings.keep_stats:
            for name, said in ((_SCORES, scores), (META, metas)):
                if said is not None or before[name] is not None:
                    record[name] = before[name] if said is None else _joined(before[name], said[row])
        yield dump_line(record)


def _joined(before: Any, said: str | bytes | None) -> Any:
    """What an earlier run said of a row, and over it what this one says (JSON)."""
    if not before or not isinstance(before, dict):
        return orjson.Fragment(said or "{}")
    return {**before, **orjson.loads(said or "{}")}


def assign(record: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted path, the way :func:`bettersynth.formats.data_juicer.nested` reads it."""
    target = record
    if key not in record:
        *parents, key = key.split(".")
        for part in parents:
            target = target.setdefault(part, {})
    target[key] = value
