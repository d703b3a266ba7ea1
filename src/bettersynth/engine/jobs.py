"""What travels between the parent and its workers, and the columns every batch has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bettersynth.core.lang import t
from bettersynth.engine.phase import Phase
from bettersynth.engine.source import SourceFile, SourceShard
from bettersynth.formats.data_juicer import Tokens, nested
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import ID, IMAGES, KEY, RECORD, TEXT

PARTIAL = "partial."
FIELD = "field."
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "string": str,
    "int": int,
    "integer": int,
    "float": (float, int),
    "bool": bool,
    "boolean": bool,
    "list": list,
    "tuple": list,
    "set": list,
    "dict": dict,
    "bytes": str,
}
BASE_SCHEMA = pa.schema(
    [
        (KEY[0], pa.int32()),
        (KEY[1], pa.int64()),
        (KEY[2], pa.int64()),
        (ID, pa.string()),
        (TEXT, pa.string()),
        (IMAGES, pa.list_(pa.string())),
        (RECORD, pa.string()),
    ]
)


@dataclass(frozen=True)
class Settings:
    """What every shard of a run shares."""

    files: tuple[SourceFile, ...]
    text_key: str
    image_key: str
    tokens: Tokens
    seed: int
    on_truncated: str
    on_missing_image: str
    device: str
    compat: str = "operators"
    required: tuple[tuple[str, str | None], ...] = ()
    """Fields every row must have, each with the name of its type or None; from text_keys and validators."""

    def required_problem(self, record: dict[str, Any]) -> str | None:
        """Why a record lacks a required field, or None."""
        for key, kind in self.required:
            value = nested(record, key)
            if value is None:
                return t("required field '{key}' is missing or null", key=key)
            wanted = _TYPES.get(kind or "")
            if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int)):
                return t("field '{key}' must be {kind}, got {got}", key=key, kind=kind, got=type(value).__name__)
        return None

    def context(self) -> OpContext:
        """A fresh operator context."""
        roots = [Path(file.image_root) for file in self.files]
        return OpContext(self.seed, roots, self.tokens, self.on_truncated, self.device)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LineSettings:
    """How a row becomes a line: under which keys text and pictures go, and whether stats stand in the row, too.

    ``num_steps`` is the step of the trace's ``kept`` events.
    """

    text_key: str
    image_key: str
    keep_stats: bool
    num_steps: int


@dataclass(frozen=True)
class StageJob:
    """A stage as sent to workers. ``verdict`` is the file with the decision of the global operator before it."""

    number: int
    phases: tuple[Phase, ...]
    rows_at_once: int
    folder: str
    settings: Settings
    verdict: str | None = None
    scores: str | None = None
    """Folder in which scores of cheap filters are kept; named after what goes into the stage."""
    shared: str | None = None
    """Folder in which several results share what models said."""
    where: str = ""
    """Kind of device that models run on."""
    lines: LineSettings | None = None
    """Of the last stage: how its rows become lines."""


@dataclass(frozen=True)
class ShardJob:
    """One shard of a stage: lines of a source file, or the result of the stage before."""

    number: int
    key: str
    input_key: str = ""
    source: SourceShard | None = None
    upstream: str | None = None
    upstream_digest: str = ""
    verdict_offset: int = 0
    poisoned: frozenset[str] = frozenset()
    probe: tuple[int, int] | None = None
    """Work on these rows only and commit nothing; finds the row that kills a worker."""


@dataclass
class Quarantined:
    """A row set aside, with what failed."""

    key: str
    file: int
    line: int
    id: str
    operator: str
    error: str
    record: str


@dataclass
class StepCount:
    """Rows of one operator in one shard; the counts of a step's phases are added up."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    changed: int = 0
    rows_made: int = 0
    cpu_s: float = 0.0
