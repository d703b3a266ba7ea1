"""Keys of Data-Juicer 1.6 recipes that steer its own machinery, with what happens here in their place.

They are accepted and checked, so that its recipes run unchanged; those that a recipe sets to something else than
Data-Juicer's default are named once, with the reason. A description is the sentence that the user reads.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Any, Literal

_PATTERNS = ("data_probe_*", "elastic_juicer_*")
_NESTED = ("checkpoint", "event_logging", "partition")
_KEPT = {"description": "finished parts are always kept, and running the same command again continues from them"}
_PASSES = {"description": "operators always share one pass over the rows where they can"}
_POOL = {"description": "one set of np processes serves every operator, and batches have a fixed size"}
_RECORD = {"description": "manifest.json and trace.arrows hold rows, reasons and CPU seconds of every operator"}
_MEDIA = {"description": "no operator of our own reads sound or video; these columns pass through unchanged"}
_LENIENT = {"description": "a bad line is always set aside alone, with its number and reason"}
_RAY = {"description": "the frozen list of shards decides what is worked on, on Ray too"}
_PREFLIGHT = {"description": "a recipe is always checked as a whole before any work"}
_INTEREST = {"description": "bettersynth explore and the trace serve this purpose"}


@dataclass(frozen=True, kw_only=True)
class IdleKeys:
    """Accepted keys that change nothing here; the defaults are Data-Juicer's."""

    use_cache: bool = field(default=True, metadata=_KEPT)
    cache_compress: str | None = field(default=None, metadata=_KEPT)
    use_checkpoint: bool = field(default=False, metadata=_KEPT)
    checkpoint: dict[str, Any] | None = field(default=None, metadata=_KEPT)
    checkpoint_dir: str | None = field(default=None, metadata=_KEPT)
    resume: str | None = field(default=None, metadata=_KEPT)
    temp_dir: str | None = field(default=None, metadata=_KEPT)
    op_fusion: bool = field(default=False, metadata=_PASSES)
    fusion_strategy: Literal["probe", "greedy"] = field(default="probe", metadata=_PASSES)
    mapper_fusion: bool = field(default=True, metadata=_PASSES)
    mapper_fusion_vram_limit: float = field(default=0.9, metadata=_PASSES)
    use_dag: bool | None = field(default=None, metadata=_PASSES)
    auto_op_parallelism: bool = field(default=True, metadata=_POOL)
    adaptive_batch_size: bool = field(default=False, metadata=_POOL)
    turbo: bool = field(default=False, metadata=_POOL)
    export_in_parallel: bool = field(default=False, metadata=_POOL)
    open_monitor: bool = field(default=False, metadata=_RECORD)
    event_logging: dict[str, Any] | None = field(default=None, metadata=_RECORD)
    event_log_dir: str | None = field(default=None, metadata=_RECORD)
    debug: bool = field(default=False, metadata=_RECORD)
    audio_key: str = field(default="audios", metadata=_MEDIA)
    video_key: str = field(default="videos", metadata=_MEDIA)
    load_jsonl_lenient: bool = field(default=False, metadata=_LENIENT)
    partition: dict[str, Any] | None = field(default=None, metadata=_RAY)
    partition_dir: str | None = field(default=None, metadata=_RAY)
    partition_size: int | None = field(default=None, metadata=_RAY)
    override_num_blocks: int | None = field(default=None, metadata=_RAY)
    read_options: dict[str, Any] = field(default_factory=dict, metadata=_RAY)
    strict_preflight: bool = field(default=True, metadata=_PREFLIGHT)
    open_insight_mining: bool = field(default=False, metadata=_INTEREST)
    op_list_to_mine: list[str] = field(default_factory=list, metadata=_INTEREST)
    min_common_dep_num_to_combine: int = field(default=-1, metadata=_RAY)
    conflict_resolve_strategy: str = field(default="split", metadata=_RAY)
    auto: bool = field(default=False, metadata=_INTEREST)
    auto_num: int = field(default=1000, metadata=_INTEREST)
    save_stats_in_one_file: bool = field(default=False, metadata=_INTEREST)
    export_original_dataset: bool = field(default=False, metadata=_INTEREST)


REFUSED = {
    "generated_dataset_config": "data sets that a class generates are not made here; write the rows to a file first",
    "decrypt_after_reading": "encrypted files are not read; decrypt them first",
    "encrypt_before_export": "results are not encrypted; leave this key out, and encrypt the result file",
    "encryption_key_path": "results are not encrypted; leave this key out, and encrypt the result file",
    "hpo_config": "parameters are not searched for here; give an adaptive_threshold to a filter in its place",
}
"""Keys that cannot be ignored without doing something else than asked: refused when they are set to anything."""


def idle_keys() -> list[str]:
    """The keys by name; those of :data:`_PATTERNS` are not among them."""
    return list(IdleKeys.__dataclass_fields__)


def is_idle(key: str) -> bool:
    """Whether a top-level key belongs to Data-Juicer's machinery; dotted spellings of nested keys count."""
    head, dot, _ = key.partition(".")
    if dot:
        return head in _NESTED
    return key in IdleKeys.__dataclass_fields__ or any(fnmatch.fnmatch(key, pattern) for pattern in _PATTERNS)


def differs(key: str, value: Any) -> bool:
    """Whether a recipe asks for something else than Data-Juicer does by itself."""
    return key not in IdleKeys.__dataclass_fields__ or bool(value != getattr(IdleKeys(), key))


def reason(key: str) -> str:
    """What happens in place of a key."""
    spec = IdleKeys.__dataclass_fields__.get(key.partition(".")[0])
    return str(spec.metadata["description"] if spec is not None else _POOL["description"])
