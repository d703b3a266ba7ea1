"""What a run and all of its shards are told, from the recipe's keys."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bettersynth.config.recipe import Recipe
from bettersynth.core.fingerprint import digest_json
from bettersynth.engine.jobs import LineSettings, Settings
from bettersynth.engine.plan import Plan
from bettersynth.engine.source import Source
from bettersynth.formats.data_juicer import Tokens
from bettersynth.formats.read import SUFFIXES, ReadOptions


def base_key(planned: Plan) -> str:
    """Digest of everything but the operators and the input that decides what rows look like."""
    keys = planned.recipe.keys
    where = device_of(planned) if any(stage.models for stage in planned.stages) else ""
    read = [planned.recipe.text_key, keys.image_key, asdict(tokens_of(planned.recipe)), keys.on_truncated]
    more: list[Any] = [keys.compat, *required_of(planned.recipe)]
    extra = more if more != ["operators"] else []
    return digest_json(["read", 2, *read, *extra, keys.on_missing_image, keys.seed, where])


def stage_folders(planned: Plan) -> list[str]:
    """Names of the stages' folders inside ``.work/stages``; a name changes with anything before it."""
    chain, names = base_key(planned), []
    for stage in planned.stages:
        chain = digest_json([chain, [phase.key for phase in stage.phases]])
        last = [asdict(line_settings(planned.recipe, len(planned.operators)))] if stage is planned.stages[-1] else []
        name = digest_json([chain, *last]) if last else chain
        names.append(f"{stage.number:02d}-{name[:16]}")
    return names


def line_settings(recipe: Recipe, num_steps: int) -> LineSettings:
    """How the recipe wants its rows written."""
    return LineSettings(recipe.text_key, recipe.keys.image_key, recipe.keys.keep_stats_in_res_ds, num_steps)


def device_of(planned: Plan) -> str:
    return "cuda" if planned.recipe.keys.device != "cpu" and has_gpu() else "cpu"


def tokens_of(recipe: Recipe) -> Tokens:
    keys = recipe.keys
    spellings = tuple(dict.fromkeys([keys.image_special_token, *Tokens().images]))
    return Tokens(spellings, keys.audio_special_token, keys.video_special_token, keys.eoc_special_token)


def settings_of(recipe: Recipe, source: Source) -> Settings:
    keys = recipe.keys
    return Settings(
        source.files,
        recipe.text_key,
        keys.image_key,
        tokens_of(recipe),
        keys.seed,
        keys.on_truncated,
        keys.on_missing_image,
        keys.device,
        keys.compat,
        required_of(recipe),
    )


def read_options(recipe: Recipe) -> ReadOptions:
    """How the recipe wants its data files read."""
    keys = recipe.keys
    asked = (keys.suffixes,) if isinstance(keys.suffixes, str) else tuple(keys.suffixes or ())
    suffixes = tuple(name if name.startswith(".") else f".{name}" for name in asked)
    columns = keys.load_dataset_kwargs.get("columns")
    return ReadOptions(
        keys.all_text_keys,
        keys.image_key,
        keys.image_bytes_key,
        keys.load_dataset_kwargs.get("delimiter", keys.load_dataset_kwargs.get("sep")),
        tuple(columns) if columns else None,
        suffixes=suffixes or SUFFIXES,
    )


def required_of(recipe: Recipe) -> tuple[tuple[str, str | None], ...]:
    """Fields every row must have beside the first text column."""
    found: dict[str, str | None] = dict.fromkeys(recipe.keys.all_text_keys[1:])
    for validator in recipe.keys.validators:
        if validator.type == "required_fields":
            found |= {name: validator.field_types.get(name) for name in validator.required_fields}
            found |= dict(validator.field_types)
    return tuple(found.items())


def shared_folder(out: Path) -> Path:
    """Where results for a result folder are shared: one place per workspace, else beside the folder."""
    for parent in out.absolute().parents:
        if (parent / "input").is_dir() and (parent / "output").is_dir():
            return parent / "output" / ".bettersynth-cache"
    return out.absolute().parent / ".bettersynth-cache"


def has_gpu() -> bool:
    return os.path.exists("/dev/nvidia0")
