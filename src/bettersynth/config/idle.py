"""Keys of Data-Juicer 1.6 recipes that steer its own machinery, with what happens here in their place.

They are accepted and checked, so that its recipes run unchanged; those that a recipe sets to something else than
Data-Juicer's default are named once, with the reason. A description is the sentence that the user reads.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_PATTERNS = ("data_probe_*", "elastic_juicer_*")
_NESTED = ("checkpoint", "event_logging", "partition")
_KEPT = "finished parts are always kept, and running the same command again continues from them"
_PASSES = "operators always share one pass over the rows where they can"
_POOL = "one set of np processes serves every operator, and batches have a fixed size"
_RECORD = "manifest.json and trace.arrows hold rows, reasons and CPU seconds of every operator"
_MEDIA = "no operator of our own reads sound or video; these columns pass through unchanged"
_LENIENT = "a bad line is always set aside alone, with its number and reason"
_RAY = "the frozen list of shards decides what is worked on, on Ray too"
_PREFLIGHT = "a recipe is always checked as a whole before any work"
_INTEREST = "bettersynth explore and the trace serve this purpose"


class IdleKeys(BaseModel):
    """Accepted keys that change nothing here; the defaults are Data-Juicer's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use_cache: bool = Field(True, description=_KEPT)
    cache_compress: str | None = Field(None, description=_KEPT)
    use_checkpoint: bool = Field(False, description=_KEPT)
    checkpoint: dict[str, Any] | None = Field(None, description=_KEPT)
    checkpoint_dir: str | None = Field(None, description=_KEPT)
    resume: str | None = Field(None, description=_KEPT)
    temp_dir: str | None = Field(None, description=_KEPT)
    op_fusion: bool = Field(False, description=_PASSES)
    fusion_strategy: Literal["probe", "greedy"] = Field("probe", description=_PASSES)
    mapper_fusion: bool = Field(True, description=_PASSES)
    mapper_fusion_vram_limit: float = Field(0.9, description=_PASSES)
    use_dag: bool | None = Field(None, description=_PASSES)
    auto_op_parallelism: bool = Field(True, description=_POOL)
    adaptive_batch_size: bool = Field(False, description=_POOL)
    turbo: bool = Field(False, description=_POOL)
    export_in_parallel: bool = Field(False, description=_POOL)
    open_monitor: bool = Field(False, description=_RECORD)
    event_logging: dict[str, Any] | None = Field(None, description=_RECORD)
    event_log_dir: str | None = Field(None, description=_RECORD)
    debug: bool = Field(False, description=_RECORD)
    audio_key: str = Field("audios", description=_MEDIA)
    video_key: str = Field("videos", description=_MEDIA)
    load_jsonl_lenient: bool = Field(False, description=_LENIENT)
    partition: dict[str, Any] | None = Field(None, description=_RAY)
    partition_dir: str | None = Field(None, description=_RAY)
    partition_size: int | None = Field(None, description=_RAY)
    override_num_blocks: int | None = Field(None, description=_RAY)
    read_options: dict[str, Any] = Field(default_factory=dict, description=_RAY)
    strict_preflight: bool = Field(True, description=_PREFLIGHT)
    open_insight_mining: bool = Field(False, description=_INTEREST)
    op_list_to_mine: list[str] = Field(default_factory=list, description=_INTEREST)
    min_common_dep_num_to_combine: int = Field(-1, description=_RAY)
    conflict_resolve_strategy: str = Field("split", description=_RAY)
    auto: bool = Field(False, description=_INTEREST)
    auto_num: int = Field(1000, description=_INTEREST)
    save_stats_in_one_file: bool = Field(False, description=_INTEREST)
    export_original_dataset: bool = Field(False, description=_INTEREST)


REFUSED = {
    "generated_dataset_config": "data sets that a class generates are not made here; write the rows to a file first",
    "decrypt_after_reading": "encrypted files are not read; decrypt them first",
    "encrypt_before_export": "results are not encrypted; leave this key out, and encrypt the result file",
    "encryption_key_path": "results are not encrypted; leave this key out, and encrypt the result file",
    "hpo_config": "parameters are not searched for here; give an adaptive_threshold to a filter in its place",
}
"""Keys that cannot be ignored without doing something else than asked: refused when they are set to anything."""


def is_idle(key: str) -> bool:
    """Whether a top-level key belongs to Data-Juicer's machinery; dotted spellings of nested keys count."""
    head, dot, _ = key.partition(".")
    if dot:
        return head in _NESTED
    return key in IdleKeys.model_fields or any(fnmatch.fnmatch(key, pattern) for pattern in _PATTERNS)


def differs(key: str, value: Any) -> bool:
    """Whether a recipe asks for something else than Data-Juicer does by itself."""
    spec = IdleKeys.model_fields.get(key)
    if spec is None:
        return True
    return bool(value != spec.get_default(call_default_factory=True))


def reason(key: str) -> str:
    """What happens in place of a key."""
    head = key.partition(".")[0]
    spec = IdleKeys.model_fields.get(head)
    return str(spec.description) if spec is not None else _POOL
