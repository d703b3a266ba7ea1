"""The keys of a recipe's top level, as a user writes them: Data-Juicer's that are honoured, and ours."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bettersynth.core.sample import DJ_AUDIO, DJ_EOC, DJ_IMAGE, DJ_VIDEO

Track = Literal["challenge", "open"]
ExportType = Literal[
    "jsonl", "json", "parquet", "jsonl.gz", "jsonl.zst", "csv", "tsv", "arrow", "webdataset", "llava", "lance"
]


class DatasetSource(BaseModel):
    """One file or folder of a data set made of several; ``limit`` reads only its first rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["local", "remote"] = Field(default="local", description="the path itself says it: local or a URL")
    path: str = Field(description="file, folder or URL")
    weight: float = Field(default=1.0, gt=0, description="share of max_sample_num")
    source: str | None = Field(default=None, description="no effect: the path says what it is")
    split: str | None = Field(default=None, description="split of a saved Hugging Face data set")
    name: str | None = Field(default=None, description="no effect: subsets of hub data sets are not downloaded")
    limit: int | None = Field(default=None, ge=1, description="only the first so many rows")
    format: str | None = Field(default=None, description="no effect: the file's ending says it")
    data_files: str | list[str] | None = Field(default=None, description="no effect: give the files as sources")
    data_dir: str | None = Field(default=None, description="no effect: give the folder as path")
    endpoint_url: str | None = Field(default=None, description="address of an S3 service other than AWS")
    aws_access_key_id: str | None = Field(default=None, description="S3 key; the environment's when not given")
    aws_secret_access_key: str | None = Field(default=None, description="S3 secret; the environment's when not given")
    aws_session_token: str | None = Field(
        default=None, description="S3 session token; the environment's when not given"
    )
    aws_region: str | None = Field(default=None, description="S3 region; the environment's when not given")


class DatasetConfig(BaseModel):
    """Several sources. Weights share out ``max_sample_num`` rows; without it every source is read whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    configs: tuple[DatasetSource, ...] = Field(description="the sources, in order")
    max_sample_num: int | None = Field(default=None, ge=1, description="rows drawn in all, shared out by weight")


class Validator(BaseModel):
    """A check on every row as it is read. ``required_fields`` is ours; other kinds are named and not run."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str = Field(description="required_fields; others are named and not run")
    required_fields: tuple[str, ...] = Field(default=(), description="fields that every row must have")
    field_types: dict[str, str] = Field(default_factory=dict, description="their types, e.g. text: str")


class RecipeKeys(BaseModel):
    """The top level of a recipe file. Field names are the keys a user writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_name: str = Field("recipe", description="label of the result")
    hypothesis: str = Field("", description="what this data strategy is expected to show; printed in reports")
    dataset_path: str = Field("", description="a data file, a folder of them, or a mixture: w1 path1 w2 path2")
    dataset: DatasetConfig | None = Field(None, description="several sources instead of dataset_path")
    suffixes: str | list[str] | None = Field(None, description="which file endings to read from a folder")
    validators: tuple[Validator, ...] = Field((), description="checks on every row as it is read")
    load_dataset_kwargs: dict[str, Any] = Field(default_factory=dict, description="delimiter and columns of CSV files")
    export_path: str | None = Field(None, description="result file; decides the output folder when none is given")
    export_type: ExportType | None = Field(None, description="form of the result; else the ending of export_path")
    export_shard_size: int = Field(0, ge=0, description="bytes per result file; 0 for one file")
    export_extra_args: dict[str, Any] = Field(default_factory=dict, description="options of a remote result")
    export_aws_credentials: dict[str, Any] | None = Field(None, description="keys and endpoint of an S3 result")
    image_root: str | None = Field(None, description="folder that relative picture paths start from")
    np: int | None = Field(None, ge=1, description="worker processes; all cores by default")
    text_keys: str | tuple[str, ...] = Field("text", description="text columns; operators use the first")
    image_key: str = Field("images", description="column with the list of picture paths")
    image_bytes_key: str = Field("image_bytes", description="column with encoded pictures, preferred over their paths")
    image_special_token: str = Field(DJ_IMAGE, description="stands in the text where a picture is")
    audio_special_token: str = Field(DJ_AUDIO, description="stands in the text where a sound is")
    video_special_token: str = Field(DJ_VIDEO, description="stands in the text where a video is")
    eoc_special_token: str = Field(DJ_EOC, description="ends a chunk: a text with its pictures")
    keep_stats_in_res_ds: bool = Field(False, description="keep __dj__stats__ in the result rows")
    keep_hashes_in_res_ds: bool = Field(False, description="Data-Juicer's hash columns; not kept here")
    skip_op_error: bool = Field(True, description="false: stop when any row fails, in place of setting it aside")
    open_tracer: bool = Field(False, description="also write Data-Juicer's sample_trace files")
    trace_num: int = Field(10, ge=0, description="samples per operator in those files")
    op_list_to_trace: list[str] = Field(default_factory=list, description="only these operators; all when empty")
    trace_keys: list[str] = Field(default_factory=list, description="fields copied into a mapper's trace")
    work_dir: str | None = Field(None, description="folder of the sample_trace files; {work_dir} in paths")
    job_id: str | None = Field(None, description="name of the run; {job_id} in paths")
    ds_cache_dir: str | None = Field(None, description="folder of model results that several outputs share")
    custom_operator_paths: str | list[str] | None = Field(
        None, description="files or folders with more operators, of our form"
    )
    executor_type: Literal["default", "local", "ray", "ray_partitioned"] = Field("default", description="where to run")
    ray_address: str = Field("auto", description="local to start Ray here, auto or an address to join a cluster")
    percentiles: list[float] = Field(default_factory=list, description="percentiles that analyze prints as well")
    compat: Literal["operators", "dj-executor"] = Field(
        "operators", description="dj-executor: round stats as Data-Juicer's default executor does before it compares"
    )
    track: Track = Field("open", description="challenge: only what the locked conversion lets through; open: anything")
    seed: int = Field(0, ge=0, description="every random choice derives from it")
    budget: int | None = Field(None, ge=1, description="samples the training may see; {budget} in operator parameters")
    max_failed_ratio: float = Field(0.1, ge=0, le=1, description="the run stops above this share of failed rows")
    on_truncated: Literal["load", "quarantine"] = Field("load", description="what to do with a picture cut short")
    on_missing_image: Literal["quarantine", "keep"] = Field("quarantine", description="rows whose picture is not there")
    device: str = Field("auto", description="auto, cpu or cuda; where models run")
    vars: dict[str, str | int | float | tuple[str, ...] | None] = Field(
        default_factory=dict, description="values for {name} in strings; of a list of paths the first that exists"
    )
    process: tuple[Any, ...] = Field((), description="operators in order: one-key mappings")

    @field_validator("text_keys", mode="after")
    @classmethod
    def _not_empty(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("at least one text key")
        return value

    @property
    def all_text_keys(self) -> tuple[str, ...]:
        """Every text column that a row must have."""
        return (self.text_keys,) if isinstance(self.text_keys, str) else tuple(self.text_keys)
