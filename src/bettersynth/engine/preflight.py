"""What a recipe names outside itself, looked at before any work: data, columns, models, the kind of result."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from bettersynth.config.recipe import Input, Recipe
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.engine.export import export_settings
from bettersynth.engine.plan import build_operator, check_models_and_columns
from bettersynth.engine.settings import read_options
from bettersynth.engine.source import find_files, with_split
from bettersynth.formats.data_juicer import nested
from bettersynth.formats.jsonl import read_rows
from bettersynth.formats.lance import load_lance
from bettersynth.formats.parquet import parquet_columns
from bettersynth.formats.read import LINES, ReadOptions
from bettersynth.formats.remote import is_url
from bettersynth.formats.table import read_table
from bettersynth.ops.base import IMAGES

_LOOKED_AT = 200
_PICTURE_COLUMNS = ("image", "img", "picture", "photo", "image_path", "image_paths", "img_path", "image_file")


def preflight(recipe: Recipe) -> list[BetterSynthError]:
    """Everything that would stop a run later: missing data, columns and models, an unknown kind of result."""
    problems = [*_result(recipe), *check_models_and_columns(recipe), *_traced(recipe)]
    inputs = recipe.inputs()
    if not inputs:
        return [*problems, *_collected(lambda: find_files([]))]
    for source in inputs:
        if not is_url(source.place):
            problems.extend(_data(recipe, source))
    return problems


def _collected(work: Any) -> list[BetterSynthError]:
    try:
        work()
    except BetterSynthError as error:
        return [error]
    return []


def _result(recipe: Recipe) -> list[BetterSynthError]:
    problems = _collected(lambda: export_settings(recipe, 0))
    if not problems and export_settings(recipe, 0).kind == "lance":
        problems = _collected(load_lance)
    return problems


def _traced(recipe: Recipe) -> list[BetterSynthError]:
    """Operators to trace that the recipe does not have."""
    known = [step.operator for step in recipe.steps]
    return [
        ConfigError(
            t("this operator is not in the process list"),
            where=recipe.document.where(("op_list_to_trace",)),
            got=name,
            hint=did_you_mean(name, known),
        )
        for name in recipe.keys.op_list_to_trace
        if name not in known
    ]


def _data(recipe: Recipe, source: Input) -> list[BetterSynthError]:
    where = recipe.document.where(("dataset_path",) if recipe.keys.dataset_path else ("dataset", "configs"))
    options = with_split(read_options(recipe), source)
    try:
        files = find_files([Path(source.place)], options)
    except BetterSynthError as error:
        error.where, error.got = where, error.got or source.place
        if "/" not in source.place.removeprefix(str(recipe.base) + "/").strip("./") and not Path(source.place).suffix:
            error.hint = t("data sets of a hub are not downloaded here; save the rows to a file first")
        return [error]
    try:
        columns = _columns(files[0], options)
    except BetterSynthError as error:
        return [error]
    if columns is None:
        return []
    problems: list[BetterSynthError] = []
    needed = [("text_keys", key) for key in recipe.keys.all_text_keys]
    if "image_key" in recipe.document.data and _reads_pictures(recipe):  # rows without pictures are fine by themselves
        needed.append(("image_key", recipe.keys.image_key))
    for setting, key in needed:
        if key in columns or any(nested(row, key) is not None for row in columns.values() if isinstance(row, dict)):
            continue
        if setting == "image_key" and recipe.keys.image_bytes_key in columns:
            continue
        hint = t("set {key} to one of them", key=setting)
        hint = (
            _delimiter(columns) or did_you_mean(key, columns) or (_to_rows(files[0]) if _are_pairs(columns) else hint)
        )
        problems.append(
            ConfigError(
                t("no row has the column '{name}'", name=key),
                where=recipe.document.where((setting,)) if setting in recipe.document.data else str(files[0]),
                got=", ".join(list(columns)[:12]) or t("nothing"),
                hint=hint,
            )
        )
    if not problems and _reads_pictures(recipe):
        problems += _unseen_pictures(recipe, columns, files[0])
    return problems


def _unseen_pictures(recipe: Recipe, columns: dict[str, Any], file: Path) -> list[BetterSynthError]:
    """Pictures that the operators would pass over in silence, or whose form fails in every row."""
    key = recipe.keys.image_key
    row = columns.get(key)
    if isinstance(row, dict) and isinstance(row.get(key), str):
        found, message = key, t("the column '{name}' holds one path and not a list of paths", name=key)
    else:
        other = next((name for name in columns if name in _PICTURE_COLUMNS), None)
        if key in columns or other is None or recipe.keys.image_bytes_key in columns:
            return []
        found = other
        message = t("operators read pictures, but no row has the column '{name}'", name=key)
    row = columns[found]
    is_pair = isinstance(row, dict) and isinstance(row.get(found), str)
    where = recipe.document.where(("image_key",)) if "image_key" in recipe.document.data else str(file)
    hint = _to_rows(file) if is_pair else t("add: {flag}", flag=f"--set image_key={found}")
    return [ConfigError(message, where=where, got=", ".join(list(columns)[:12]), hint=hint)]


def _delimiter(columns: dict[str, Any]) -> str:
    """What to do about a table whose only column is a whole line of another delimiter."""
    marks = [mark for mark in ("\t", ";", "|", ",") if len(columns) == 1 and mark in next(iter(columns))]
    return t("add: {flag}", flag=f"--set 'load_dataset_kwargs={{delimiter: {json.dumps(marks[0])}}}'") if marks else ""


def _are_pairs(columns: dict[str, Any]) -> bool:
    """Whether rows look like plain pairs: a caption (or conversation), and one picture by its path."""
    row = columns.get("image")
    has_path = isinstance(row, dict) and isinstance(row.get("image"), str)
    return has_path and ("caption" in columns or "conversations" in columns)


def _to_rows(file: Path) -> str:
    return t(
        "plain pairs become rows with: {command}",
        command=f"bettersynth convert pairs-to-dj --input {file} --output rows.jsonl",
    )


def _reads_pictures(recipe: Recipe) -> bool:
    operators = (build_operator(step, recipe.document)[0] for step in recipe.steps)
    return any(operator is not None and IMAGES in operator.reads for operator in operators)


def _columns(file: Path, options: ReadOptions) -> dict[str, Any] | None:
    """Columns of a data file, each with a row that has it; None where looking would mean reading the whole file."""
    if file.suffix == ".parquet":
        return dict.fromkeys(parquet_columns(file))
    found: dict[str, Any] = {}
    if file.suffix in (".csv", ".tsv"):
        for row in islice(read_table(file, delimiter=options.delimiter, columns=options.columns), 1):
            found |= dict.fromkeys(row)
        return found or None
    if not file.name.endswith(LINES):
        return None
    for _, record in islice(read_rows(file), _LOOKED_AT):
        if isinstance(record, dict):
            for name, value in record.items():
                found.setdefault(name, record)
                if isinstance(value, dict):
                    found[name] = record
    return found or None
