"""Data-Juicer's tracer files: a few changed or dropped samples per operator, in its names and layout.

``sample_trace-OPERATOR.jsonl`` holds ``{trace_keys..., original_text, processed_text}`` for mappers and the whole
dropped sample for filters; ``duplicate-OPERATOR.jsonl`` the dropped sample as ``dup2`` (the engine keeps no pairs).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.engine import trace
from bettersynth.engine.lines import assign
from bettersynth.engine.plan import Plan, unwrap
from bettersynth.engine.source import Source
from bettersynth.formats import jsonl
from bettersynth.formats.data_juicer import nested
from bettersynth.ops.base import Deduplicator, Filter, Mapper


def work_folder(planned: Plan, out: Path) -> Path:
    """``work_dir`` with ``job_id`` inside it, or the result folder."""
    keys = planned.recipe.keys
    if not keys.work_dir:
        return out
    folder = Path(keys.work_dir).expanduser()
    return folder / keys.job_id if keys.job_id and keys.job_id not in folder.parts else folder


def export_samples(out: Path, planned: Plan, source: Source) -> Path:
    """Write the tracer files of a finished run from its trace; returns their folder."""
    keys = planned.recipe.keys
    chosen: dict[int, list[dict[str, Any]]] = {}
    for event in trace.load(out):
        if event["action"] in ("changed", "dropped") and event["operator"]:
            listed = chosen.setdefault(event["step"], [])
            if len(listed) < keys.trace_num:
                listed.append(event)
    records = _records(source, {event["key"] for listed in chosen.values() for event in listed})
    folder = work_folder(planned, out) / "trace"
    lines: dict[str, list[bytes]] = {}
    for step, operator in enumerate(planned.operators):
        inner = unwrap(operator)
        if keys.op_list_to_trace and inner.name not in keys.op_list_to_trace:
            continue
        for event in chosen.get(step, ()):
            record = records.get(event["key"].rpartition(":")[0] if event["key"].count(":") > 1 else event["key"], {})
            if isinstance(inner, Mapper) and event["action"] == "changed":
                picked = {name: nested(record, name) for name in keys.trace_keys}
                row = {**picked, "original_text": event["before"], "processed_text": event["after"]}
                lines.setdefault(f"sample_trace-{inner.name}.jsonl", []).append(jsonl.dump_line(row))
            elif isinstance(inner, Filter | Deduplicator) and event["action"] == "dropped":
                row = dict(record)
                assign(row, planned.recipe.text_key, event["before"])
                row["__dj__stats__"] = event["scores"]
                is_filter = isinstance(inner, Filter)
                name = f"{'sample_trace' if is_filter else 'duplicate'}-{inner.name}.jsonl"
                lines.setdefault(name, []).append(jsonl.dump_line(row if is_filter else {"dup2": row}))
    for name, listed_lines in lines.items():
        write_atomic(folder / name, b"".join(listed_lines))
    return folder


def _records(source: Source, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The records as they were read, by ``file:line``."""
    wanted: dict[int, set[int]] = {}
    for key in keys:
        file, line = key.split(":")[:2]
        wanted.setdefault(int(file), set()).add(int(line))
    found: dict[str, dict[str, Any]] = {}
    for shard in source.shards:
        first = shard.span.first_line
        lines = {n for n in wanted.get(shard.file, ()) if first <= n < first + shard.span.lines}
        if lines:
            data = jsonl.read_range(Path(source.files[shard.file].path), shard.span)
            for number, record in jsonl.parse_lines(data, first_line=first):
                if number in lines and isinstance(record, dict):
                    found[f"{shard.file}:{number}"] = record
    return found
