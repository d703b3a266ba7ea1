"""Which samples differ between two data sets, and why, as far as their traces tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import xxhash

from bettersynth.core.artifact import Artifact
from bettersynth.core.lang import t
from bettersynth.engine import trace
from bettersynth.engine.source import find_files
from bettersynth.formats.data_juicer import nested
from bettersynth.formats.jsonl import read_rows
from bettersynth.formats.pictures import PictureFolder
from bettersynth.formats.read import LINES, ReadOptions, read_any

Kind = Literal["only in A", "only in B", "changed", "more copies in A", "more copies in B"]


@dataclass
class Group:
    """Samples that differ in the same way for the same reason."""

    kind: Kind
    reason: str
    samples: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Diff:
    """``same``: samples with equal text and pictures in both; ``groups``: the others, the largest first."""

    rows_a: int
    rows_b: int
    same: int
    groups: tuple[Group, ...]


def diff(a: Path, b: Path, *, text_key: str = "text", image_key: str = "images", examples: int = 3) -> Diff:
    """Compare two data sets sample by sample. Samples are told apart by id; rows of the same id count as copies.

    Args:
        a, b: processed folders (then with reasons from their traces), or data files.
        examples: ids listed per group.

    Raises:
        ConfigError, DataError: a path does not exist or cannot be read.
    """
    left, right = _contents(a, text_key, image_key), _contents(b, text_key, image_key)
    kinds: dict[str, Kind] = {}
    same = 0
    for row_id in {**left, **right}:
        kind = _kind(left.get(row_id), right.get(row_id))
        if kind is None:
            same += 1
        else:
            kinds[row_id] = kind
    why_a, why_b = _reasons(a, kinds), _reasons(b, kinds)
    groups: dict[tuple[str, str], Group] = {}
    for row_id, kind in kinds.items():
        reason = _why(kind, why_a.get(row_id), why_b.get(row_id))
        group = groups.setdefault((kind, reason), Group(kind, reason))
        group.samples += 1
        if len(group.examples) < examples:
            group.examples.append(row_id)
    ordered = sorted(groups.values(), key=lambda group: (-group.samples, group.kind, group.reason))
    return Diff(_rows(left), _rows(right), same, tuple(ordered))


def _rows(contents: dict[str, Counter[bytes]]) -> int:
    return sum(counter.total() for counter in contents.values())


def _kind(a: Counter[bytes] | None, b: Counter[bytes] | None) -> Kind | None:
    if a is None or b is None:
        return "only in B" if a is None else "only in A"
    if a == b:
        return None
    if set(a) != set(b):
        return "changed"
    return "more copies in A" if a.total() > b.total() else "more copies in B"


def _contents(path: Path, text_key: str, image_key: str) -> dict[str, Counter[bytes]]:
    """Digests of text and pictures of every row, by id (or place, where there is none)."""
    found: dict[str, Counter[bytes]] = {}
    for number, row in enumerate(_read(path), 1):
        row_id = str(row["id"]) if row.get("id") is not None else f"row {number}"
        content = orjson.dumps([nested(row, text_key), row.get(image_key) or []])
        found.setdefault(row_id, Counter())[xxhash.xxh3_128_digest(content)] += 1
    return found


def _read(path: Path) -> Iterator[dict[str, Any]]:
    places = [path]
    if Artifact.exists(path):
        facts = Artifact.load(path, kind="dataset").facts
        places = [path / str(name) for name in facts.get("data_files", [facts["data"]])]
    for file in find_files(places):
        if file.name.endswith(LINES):
            rows: Iterator[Any] = (row for _, row in read_rows(file))
        else:
            rows = iter(read_any(file, ReadOptions(), PictureFolder(file.parent, ".pictures")))
        yield from (row for row in rows if isinstance(row, dict))


@dataclass
class _Reason:
    """What a trace says of one id: why it went, which operators rewrote or multiplied it."""

    gone: str = ""
    changed: dict[str, None] = field(default_factory=dict)
    made: dict[str, None] = field(default_factory=dict)


def _reasons(path: Path, wanted: dict[str, Kind]) -> dict[str, _Reason]:
    found: dict[str, _Reason] = {}
    if not (path / trace.TRACE_FILE).is_file():
        return found
    for event in trace.load(path):
        if event["id"] not in wanted:
            continue
        reason = found.setdefault(event["id"], _Reason())
        if event["action"] in ("dropped", "quarantined"):
            reason.gone = f"{event['operator']}: {event['reason']}"
        elif event["action"] == "changed":
            reason.changed[event["operator"]] = None
        elif event["action"] == "made":
            reason.made[event["operator"]] = None
    return found


def _why(kind: Kind, a: _Reason | None, b: _Reason | None) -> str:
    if kind in ("only in A", "only in B"):
        side, name = (b, "B") if kind == "only in A" else (a, "A")
        if side is None or not side.gone:
            return t("not in the input of {name}, or it has no trace", name=name)
        return side.gone
    said = []
    for side, name in ((a, "A"), (b, "B")):
        names = (side.changed or side.made) if kind == "changed" and side else side.made if side else {}
        if names:
            said.append(f"{name}: {', '.join(names)}")
    return "; ".join(said) or t("the traces do not say why")
