"""The keys of a recipe's top level, as a user writes them: Data-Juicer's that are honoured, and ours.

Plain dataclasses, as pydantic takes longer to import than most recipes take to plan; where it judges (see
:func:`bettersynth.config.load.check`) it reads descriptions and bounds from the fields' metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from bettersynth.core.sample import DJ_AUDIO, DJ_EOC, DJ_IMAGE, DJ_VIDEO

Track = Literal["challenge", "open"]
ExportType = Literal[
    "jsonl", "json", "parquet", "jsonl.gz", "jsonl.zst", "csv", "tsv", "arrow", "webdataset", "llava", "lance"
]

_FORBID = {"extra": "forbid"}


def key(default: Any = ..., description: str = "", *, make: Callable[[], Any] | None = None, **bounds: float) -> Any:
    """A key: what it is when it is not given, what it means, and ``ge``, ``gt``, ``le``, ``lt``."""
    metadata = {"description": description, **bounds}
    if make is not None:
        return field(default_factory=make, metadata=metadata)
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """One file or folder of a data set made of several; ``limit`` reads only its first rows."""

    __pydantic_config__: ClassVar = _FORBID
    type: Literal["local", "remote"] = key("local", description="the path itself says it: local or a URL")
    path: str = key(description="file, folder or URL")
    weight: float = key(1.0, gt=0, description="share of max_sample_num")
    source: str | None = key(None, description="no effect: the path says what it is")
    split: str | None = key(None, description="split of a saved Hugging Face data set")
    name: str | None = key(None, description="no effect: subsets of hub data sets are not downloaded")
    limit: int | None = key(None, ge=1, description="only the first so many rows")
    format: str | None = key(None, description="no effect: the file's ending says it")
    data_files: str | list[str] | None = key(None, description="no effect: give the files as sources")
    data_dir: str | None = key(None, description="no effect: give the folder as path")
    endpoint_url: str | None = key(None, description="address of an S3 service other than AWS")
    aws_access_key_id: str | None = key(None, description="S3 key; the environment's when not given")
    aws_secret_access_key: str | None = key(None, description="S3 secret; the environment's when not given")
    aws_session_token: str | None = key(default=None, description="S3 session token; the environment's when not given")
    aws_region: str | None = key(None, description="S3 region; the environment's when not given")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Several sources. Weights share out ``max_sample_num`` rows; without it every source is read whole."""

    __pydantic_config__: ClassVar = _FORBID
    configs: tuple[DatasetSource, ...] = key(description="the sources, in order")
    max_sample_num: int | None = key(None, ge=1, description="rows drawn in all, shared out by weight")


@dataclass(frozen=True, kw_only=True)
class Validator:
    """A check on every row as it is read. ``required_fields`` is ours; other kinds are named and not run."""

    type: str = key(description="required_fields; others are named and not run")
    required_fields: tuple[str, ...] = key((), description="fields that every row must have")
    field_types: dict[str, str] = key(make=dict, description="their types, e.g. text: str")


@dataclass(frozen=True, kw_only=True)
class RecipeKeys:
    """The top level of a recipe file. Field names are the keys a user writes."""

    project_name: str = key("recipe", description="label of the result")
    hypothesis: str = key("", description="what this data strategy is expected to show; printed in reports")
    dataset_path: str = key("", description="a data file, a folder of them, or a mixture: w1 path1 w2 path2")
    dataset: DatasetConfig | None = key(None, description="several sources instead of dataset_path")
    suffixes: str | list[str] | None = key(None, description="which file endings to read from a folder")
    validators: tuple[Validator, ...] = key((), description="checks on every row as it is read")
    load_dataset_kwargs: dict[str, Any] = key(make=dict, description="delimiter and columns of CSV files")
    export_path: str | None = key(None, description="result file; decides the output folder when none is given")
    export_type: ExportType | None = key(None, description="form of the result; else the ending of export_path")
    export_shard_size: int = key(0, ge=0, description="bytes per result file; 0 for one file")
    export_extra_args: dict[str, Any] = key(make=dict, description="options of a remote result")
    export_aws_credentials: dict[str, Any] | None = key(None, description="keys and endpoint of an S3 result")
    image_root: str | None = key(None, description="folder that relative picture paths start from")
    np: int | None = key(None, ge=1, description="worker processes; all cores by default")
    text_keys: str | tuple[str, ...] = key("text", description="text columns; operators use the first")
    image_key: str = key("images", description="column with the list of picture paths")
    image_bytes_key: str = key("image_bytes", description="column with encoded pictures, preferred over their paths")
    image_special_token: str = key(DJ_IMAGE, description="stands in the text where a picture is")
    audio_special_token: str = key(DJ_AUDIO, description="stands in the text where a sound is")
    video_special_token: str = key(DJ_VIDEO, description="stands in the text where a video is")
    eoc_special_token: str = key(DJ_EOC, description="ends a chunk: a text with its pictures")
    keep_stats_in_res_ds: bool = key(False, description="keep __dj__stats__ in the result rows")
    keep_hashes_in_res_ds: bool = key(False, description="Data-Juicer's hash columns; not kept here")
    skip_op_error: bool = key(True, description="false: stop when any row fails, in place of setting it aside")
    open_tracer: bool = key(False, description="also write Data-Juicer's sample_trace files")
    trace_num: int = key(10, ge=0, description="samples per operator in those files")
    op_list_to_trace: list[str] = key(make=list, description="only these operators; all when empty")
    trace_keys: list[str] = key(make=list, description="fields copied into a mapper's trace")
    work_dir: str | None = key(None, description="folder of the sample_trace files; {work_dir} in paths")
    job_id: str | None = key(None, description="name of the run; {job_id} in paths")
    ds_cache_dir: str | None = key(None, description="folder of model results that several outputs share")
    custom_operator_paths: str | list[str] | None = key(
        None, description="files or folders with more operators, of our form or of Data-Juicer's classes"
    )
    executor_type: Literal["default", "local", "ray", "ray_partitioned"] = key("default", description="where to run")
    ray_address: str = key("auto", description="local to start Ray here, auto or an address to join a cluster")
    percentiles: list[float] = key(make=list, description="percentiles that analyze prints as well")
    compat: Literal["operators", "dj-executor"] = key(
        "operators", description="dj-executor: round stats as Data-Juicer's default executor does before it compares"
    )
    track: Track = key("open", description="challenge: only what the locked conversion lets through; open: anything")
    seed: int = key(0, ge=0, description="every random choice derives from it")
    budget: int | None = key(None, ge=1, description="samples the training may see; {budget} in operator parameters")
    max_failed_ratio: float = key(0.1, ge=0, le=1, description="the run stops above this share of failed rows")
    on_truncated: Literal["load", "quarantine"] = key("load", description="what to do with a picture cut short")
    on_missing_image: Literal["quarantine", "keep"] = key("quarantine", description="rows whose picture is not there")
    device: str = key("auto", description="auto, cpu or cuda; where models run")
    vars: dict[str, str | int | float | tuple[str, ...] | None] = key(
        make=dict, description="values for {name} in strings; of a list of paths the first that exists"
    )
    process: tuple[Any, ...] = key((), description="operators in order: one-key mappings")

    @property
    def all_text_keys(self) -> tuple[str, ...]:
        """Every text column that a row must have."""
        return (self.text_keys,) if isinstance(self.text_keys, str) else tuple(self.text_keys)
