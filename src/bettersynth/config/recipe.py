"""The recipe: what should happen to a data set, in Data-Juicer's syntax with a few keys of our own."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bettersynth.config.load import Document, apply_overrides, check, load_yaml, raise_all
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.core.sample import DJ_AUDIO, DJ_EOC, DJ_IMAGE, DJ_VIDEO

Track = Literal["challenge", "open"]

# Keys of Data-Juicer 1.6 recipes that steer its own machinery. They are accepted, so that its recipes run unchanged,
# and named once in the plan as having no effect here.
NO_EFFECT = frozenset(
    """
    generated_dataset_config validators export_type export_shard_size export_in_parallel keep_hashes_in_res_ds
    auto_op_parallelism audio_key video_key image_bytes_key suffixes skip_op_error turbo use_cache ds_cache_dir
    cache_compress temp_dir use_checkpoint open_tracer trace_num op_list_to_trace trace_keys open_monitor
    open_insight_mining op_list_to_mine op_fusion fusion_strategy mapper_fusion mapper_fusion_vram_limit
    adaptive_batch_size executor_type ray_address work_dir job_id resume strict_preflight load_jsonl_lenient
    load_dataset_kwargs export_extra_args export_aws_credentials percentiles export_original_dataset
    save_stats_in_one_file auto auto_num custom_operator_paths debug event_logging event_log_dir checkpoint
    checkpoint_dir partition partition_dir read_options override_num_blocks decrypt_after_reading
    encrypt_before_export encryption_key_path hpo_config min_common_dep_num_to_combine conflict_resolve_strategy
    """.split()  # noqa: SIM905 - a word list is easier to read and to compare with the documentation
)
NO_EFFECT_PATTERNS = ("data_probe_*", "elastic_juicer_*")


class DatasetSource(BaseModel):
    """One local file or folder of a data set made of several."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["local"] = "local"
    path: str
    weight: float = 1.0


class DatasetConfig(BaseModel):
    """Several sources, read one after the other (weights matter to Data-Juicer only together with max_sample_num)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    configs: tuple[DatasetSource, ...]


class RecipeKeys(BaseModel):
    """The top level of a recipe file. Field names are the keys a user writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project_name: str = Field("recipe", description="label of the result")
    hypothesis: str = Field("", description="what this data strategy is expected to show; printed in reports")
    dataset_path: str = Field("", description="a JSONL, JSON or Parquet file, or a folder of them")
    dataset: DatasetConfig | None = Field(None, description="several sources instead of dataset_path")
    export_path: str | None = Field(None, description="result file; decides the output folder when none is given")
    image_root: str | None = Field(None, description="folder that relative picture paths start from")
    np: int | None = Field(None, ge=1, description="worker processes; all cores by default")
    text_keys: str | tuple[str, ...] = Field("text", description="text column; operators use the first")
    image_key: str = Field("images", description="column with the list of picture paths")
    image_special_token: str = DJ_IMAGE
    audio_special_token: str = DJ_AUDIO
    video_special_token: str = DJ_VIDEO
    eoc_special_token: str = DJ_EOC
    keep_stats_in_res_ds: bool = Field(False, description="keep __dj__stats__ in the result rows")
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


@dataclass(frozen=True)
class Step:
    """One entry of the process list, not yet checked against the operator."""

    operator: str
    params: Mapping[str, Any]
    position: int
    where: str


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``keys`` holds the global settings, ``steps`` the process list with variables filled in."""

    keys: RecipeKeys
    steps: tuple[Step, ...]
    document: Document
    base: Path
    ignored: tuple[str, ...] = field(default=())

    @property
    def text_key(self) -> str:
        """The column operators read as ``text``."""
        return self.keys.text_keys if isinstance(self.keys.text_keys, str) else self.keys.text_keys[0]

    def sources(self) -> list[Path]:
        """The files or folders to read, resolved against the recipe's folder and then the working directory."""
        if self.keys.dataset_path:
            return [self._resolve(self.keys.dataset_path)]
        if self.keys.dataset is not None:
            return [self._resolve(source.path) for source in self.keys.dataset.configs]
        return []

    def _resolve(self, text: str) -> Path:
        path = Path(text).expanduser()
        return path if path.is_absolute() or path.exists() else (self.base / path)


_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_recipe(
    path: Path,
    *,
    overrides: Iterable[str] = (),
    variables: Mapping[str, str | int | float] | None = None,
    check_steps: Callable[[tuple[Step, ...], Document], list[BetterSynthError]] | None = None,
) -> Recipe:
    """Read, override and check a recipe file.

    Args:
        overrides: ``key=value`` texts; ``OPERATOR.param=value`` reaches into the process list.
        variables: values for ``{name}`` in strings; they win over the recipe's own ``vars``.
        check_steps: checks the process list against the operators (given by the engine), so that all mistakes of the
            file are shown together.

    Raises:
        ConfigError, ConfigErrors: everything that is wrong, with line numbers.
    """
    return build_recipe(
        load_yaml(path), base=path.parent, overrides=overrides, variables=variables, check_steps=check_steps
    )


def build_recipe(
    document: Document,
    *,
    base: Path,
    overrides: Iterable[str] = (),
    variables: Mapping[str, str | int | float] | None = None,
    check_steps: Callable[[tuple[Step, ...], Document], list[BetterSynthError]] | None = None,
) -> Recipe:
    """Like :func:`load_recipe`, from a parsed document; relative paths start at ``base``."""
    document = apply_overrides(document, _expand_operator_overrides(document, overrides))
    data = dict(document.data)
    ignored = tuple(sorted(key for key in data if _has_no_effect(key)))
    for key in ignored:
        del data[key]
    problems: list[BetterSynthError] = []
    values = _variables(data, variables or {}, base)
    data = {
        key: _fill(item, values, document, (key,), problems) if key != "vars" else item for key, item in data.items()
    }
    process = data.pop("process", None) or []
    keys, key_problems = check(RecipeKeys, data, document)
    problems.extend(key_problems)
    steps = _steps(process, document, problems)
    if check_steps is not None:
        problems.extend(check_steps(steps, document))
    raise_all(problems, where=document.name)
    assert keys is not None  # check() returns either a value or problems, and problems have been raised
    return Recipe(keys, steps, document, base, ignored)


def _has_no_effect(key: str) -> bool:
    return key in NO_EFFECT or any(fnmatch.fnmatch(key, pattern) for pattern in NO_EFFECT_PATTERNS)


def _expand_operator_overrides(document: Document, overrides: Iterable[str]) -> list[str]:
    """``text_length_filter.min_len=5`` becomes ``process.N.text_length_filter.min_len=5``, as Data-Juicer allows."""
    process = document.data.get("process")
    places: dict[str, int] = {}
    if isinstance(process, list):
        for number, item in enumerate(process):
            for name in item if isinstance(item, dict) else ():
                places.setdefault(str(name), number)
    expanded = []
    for override in overrides:
        head, dot, _ = override.partition("=")[0].partition(".")
        expanded.append(f"process.{places[head]}.{override}" if dot and head in places else override)
    return expanded


def _variables(data: Mapping[str, Any], given: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Values by name: those given, the budget, and the recipe's own, which may use the ones before them.

    Of a list the first path that exists is taken (the last one when none does), so that one recipe serves the real
    models of one folder and the tiny ones of another.
    """
    values: dict[str, Any] = {}
    if isinstance(data.get("budget"), int):
        values["budget"] = data["budget"]
    values.update(given)
    own = data.get("vars")
    for key, value in own.items() if isinstance(own, dict) else ():
        if key in given or value is None:
            continue
        choices = [
            _VARIABLE.sub(lambda match: str(values.get(match.group(1), match.group())), str(item))
            for item in (value if isinstance(value, list) else [value])
        ]
        there = [choice for choice in choices if Path(choice).exists() or (base / choice).exists()]
        if isinstance(value, list):
            values[key] = (there or choices[-1:] or [""])[0]
        else:
            values[key] = choices[0] if isinstance(value, str) else value
    return values


def _fill(
    value: Any,
    values: Mapping[str, Any],
    document: Document,
    at: tuple[str | int, ...],
    problems: list[BetterSynthError],
) -> Any:
    """Replace ``{name}``; a string that is nothing but one variable takes the variable's own type."""
    if isinstance(value, dict):
        return {key: _fill(item, values, document, (*at, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, values, document, (*at, number), problems) for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    missing = [name for name in _VARIABLE.findall(value) if name not in values]
    for name in missing:
        problems.append(
            ConfigError(
                t("no value for the variable '{name}'", name=name),
                where=document.where(at),
                got=value,
                hint=did_you_mean(name, values) or t("give it under vars: or with --set vars.{name}=VALUE", name=name),
            )
        )
    if missing:
        return value
    whole = _VARIABLE.fullmatch(value)
    return values[whole.group(1)] if whole else _VARIABLE.sub(lambda match: str(values[match.group(1)]), value)


def _steps(process: Any, document: Document, problems: list[BetterSynthError]) -> tuple[Step, ...]:
    steps = []
    if not isinstance(process, list):
        problems.append(
            ConfigError(t("process must be a list"), where=document.where(("process",)), got=type(process).__name__)
        )
        return ()
    for number, item in enumerate(process):
        where = document.where(("process", number))
        entry = {item: None} if isinstance(item, str) else item
        if not isinstance(entry, dict) or len(entry) != 1:
            problems.append(
                ConfigError(
                    t("each step is one operator with its parameters"),
                    where=where,
                    got=item,
                    expected="- operator_name: {parameter: value}",
                )
            )
            continue
        name, params = next(iter(entry.items()))
        if params is not None and not isinstance(params, dict):
            problems.append(
                ConfigError(
                    t("parameters must be a mapping"), where=document.where(("process", number, str(name))), got=params
                )
            )
            continue
        steps.append(Step(str(name), params or {}, number, where))
    return tuple(steps)
