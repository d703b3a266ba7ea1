"""Run by Data-Juicer's Python: a recipe through the operators' own methods, without its executor and data set layer.

The operator code is the reference. Its default executor passes stats through a rounding encoder between computing and
deciding, so a few rows at a threshold differ from what the operators themselves say; this tells which.

    PYTHON operator_code.py RECIPE.yaml DATA.jsonl OUT.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    """Write the rows that come out, in order."""
    recipe, data, out = (Path(word) for word in sys.argv[1:4])
    from data_juicer.ops import load_ops  # noqa: F401 - importing it registers the operators
    from data_juicer.ops.base_op import OPERATORS, Deduplicator, Filter
    from data_juicer.utils.constant import Fields

    with data.open(encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    for row in rows:
        row["images"] = [os.path.join(data.parent, path) for path in row.get("images", ())]
        row[Fields.stats] = {}
    for step in yaml.safe_load(recipe.read_text(encoding="utf-8"))["process"]:
        name, params = next(iter(step.items()))
        operator = OPERATORS.modules[name](**(params or {}))
        if isinstance(operator, Filter):
            rows = [row for part in _parts(rows) for row in _filtered(operator, part)]
        elif isinstance(operator, Deduplicator):
            rows = _deduplicated(operator, rows)
        else:
            rows = [row for part in _parts(rows) for row in _rows(operator.process_batched(_columns(part)))]
    with out.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps({key: row[key] for key in ("id", "text", "images", Fields.stats)}) + "\n")


def _parts(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [rows[start : start + 1000] for start in range(0, len(rows), 1000)]


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _filtered(operator: Any, part: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if operator.is_batched_op():
        columns = operator.compute_stats_batched(_columns(part))
        kept = list(operator.process_batched(columns))
        return [row for row, stays in zip(_rows(columns), kept, strict=True) if stays]
    return [row for row in map(operator.compute_stats_single, part) if operator.process_single(row)]


def _deduplicated(operator: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from data_juicer.core.data import NestedDataset
    from datasets import Dataset

    hashed = [operator.compute_hash({key: row[key] for key in ("text", "images")}) for row in rows]
    new = [
        {**{k: v for k, v in row.items() if k not in ("text", "images")}, "place": n} for n, row in enumerate(hashed)
    ]
    kept, _ = operator.process(NestedDataset(Dataset.from_list(new)))
    return [rows[place] for place in kept["place"]]


if __name__ == "__main__":
    main()
