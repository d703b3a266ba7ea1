"""Stats of every filter over all rows, without dropping any: what Data-Juicer's analyzer writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import Artifact, write_atomic
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.engine.local import process
from bettersynth.engine.plan import plan
from bettersynth.engine.renamed import current_name
from bettersynth.engine.samples import work_folder
from bettersynth.formats.jsonl import read_rows
from bettersynth.formats.write import stem_of
from bettersynth.ops._catalog import OPERATORS, operator_class
from bettersynth.ops.base import Filter

_CSV, _MARKDOWN = "overall.csv", "overall.md"


def filters_only(recipe: Recipe) -> Recipe:
    """The recipe with its filters alone; Data-Juicer's analyzer runs nothing else either.

    Raises:
        ConfigError: it has no filter.
    """
    steps = tuple(step for step in recipe.steps if _is_filter(step.operator))
    if not steps:
        raise ConfigError(
            t("nothing to analyze: the process list has no filter"), where=recipe.document.where(("process",))
        )
    return replace(recipe, steps=steps)


def _is_filter(name: str) -> bool:
    return issubclass(operator_class(name if name in OPERATORS else current_name(name)), Filter)


def analyze_stats(recipe: Recipe, *, out: Path, progress: Callable[[Any], None] | None = None) -> Path:
    """Score every row with every filter of the recipe; returns the folder with ``overall.csv`` and ``overall.md``.

    The scores of single rows are in ``NAME_stats.jsonl`` beside the result, as in Data-Juicer.

    Raises:
        ConfigError: the recipe has no filter, or the folder holds what a recipe made of the rows.
    """
    recipe = filters_only(recipe)
    _spare_result(out)
    artifact = process(recipe, out=out, progress=progress, scores_only=True)
    name = str(artifact.facts["data"])
    values = collect(out / f"{stem_of(name)}_stats.jsonl")
    folder = work_folder(plan(recipe), out) / "analysis"
    table = describe(values, recipe.keys.percentiles)
    rows = list(next(iter(table.values()), {}))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["", *table])
    writer.writerows([row, *(table[column][row] for column in table)] for row in rows)
    write_atomic(folder / _CSV, buffer.getvalue().encode())
    lines = [["", *table], ["---"] * (len(table) + 1)]
    lines += [[row, *(f"{table[column][row]:g}" for column in table)] for row in rows]
    write_atomic(folder / _MARKDOWN, "".join(f"| {' | '.join(line)} |\n" for line in lines).encode())
    return folder


def _spare_result(out: Path) -> None:
    """Refuse to put the rows of an analysis, which are those of the input, in place of a recipe's result."""
    made = Artifact.load(out) if Artifact.exists(out) else None
    steps = made.facts.get("accounting", ()) if made is not None else ()
    if any(step["dropped"] or step["changed"] or step["rows_made"] for step in steps):
        raise ConfigError(
            t("this folder holds the result of a recipe, which an analysis would replace"),
            where=str(out),
            hint=t("choose another place: {flag}", flag="--export_path FOLDER/NAME.jsonl"),
        )


def collect(path: Path) -> dict[str, list[float]]:
    """Numbers of every stat; a list (one number per picture) gives all of its numbers."""
    values: dict[str, list[float]] = {}
    if not path.is_file():
        return values
    for _, row in read_rows(path):
        stats = row["__dj__stats__"] if isinstance(row, dict) else {}
        for name, value in stats.items():
            listed = value if isinstance(value, list) else [value]
            values.setdefault(name, []).extend(float(v) for v in listed if isinstance(v, int | float))
    return values


def describe(values: dict[str, list[float]], percentiles: list[float]) -> dict[str, dict[str, float]]:
    """Count, mean, standard deviation (n - 1), smallest, percentiles and largest of each stat, as pandas has them."""
    shares = sorted({0.25, 0.5, 0.75, *percentiles})
    table: dict[str, dict[str, float]] = {}
    for name, listed in values.items():
        numbers = np.array(listed, np.float64)
        if not len(numbers):
            continue
        spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
        row = {"count": float(len(numbers)), "mean": float(numbers.mean()), "std": spread, "min": float(numbers.min())}
        row |= {f"{100 * share:g}%": float(np.quantile(numbers, share)) for share in shares}
        table[name] = {**row, "max": float(numbers.max())}
    return table


def overall(folder: Path) -> dict[str, dict[str, float]]:
    """The table that :func:`analyze_stats` wrote: stat, then row name, to number."""
    with (folder / _CSV).open(encoding="utf-8", newline="") as handle:
        header, *rows = list(csv.reader(handle))
    return {name: {row[0]: float(row[place]) for row in rows} for place, name in enumerate(header) if place}
