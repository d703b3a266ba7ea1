"""Runs an exported folder the way Data-Juicer's default executor does, with a stand-in for Data-Juicer.

    python stand_in_executor.py PACKAGES        in the exported folder; writes PACKAGES first, prints the rows as JSON

Data-Juicer's own operators in the recipe are played by ours of the same name, so what is tested is the bridge.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_BASE = """
class OP:
    def __init__(self, **kwargs): assert not kwargs, kwargs
class Filter(OP): pass
class Mapper(OP): pass
class Selector(OP): pass
class OPERATORS:
    modules = {}
    @classmethod
    def register_module(cls, name):
        return lambda made: cls.modules.setdefault(name, made)
"""
_DATASETS = """
class Dataset:
    features = None
    def __init__(self, columns): self.columns = columns
    @classmethod
    def from_dict(cls, columns, features=None): return cls(dict(columns))
    @property
    def column_names(self): return list(self.columns)
    def __len__(self): return len(next(iter(self.columns.values())))
    def __getitem__(self, part): return {name: values[part] for name, values in self.columns.items()}
    def select(self, rows): return Dataset({n: [v[row] for row in rows] for n, v in self.columns.items()})
    def remove_columns(self, names): return Dataset({n: v for n, v in self.columns.items() if n not in names})
"""
_FILES = {
    "data_juicer/__init__.py": "",
    "data_juicer/ops/__init__.py": "",
    "data_juicer/ops/base_op.py": _BASE,
    "data_juicer/core/__init__.py": "",
    "data_juicer/core/data.py": "def NestedDataset(dataset):\n    return dataset\n",
    "datasets.py": _DATASETS,
}
_BATCH = 7  # small and odd, so that batches never fall together with anything


def install(folder: Path) -> None:
    """Write the stand-in packages."""
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Run the recipe here."""
    import importlib

    import yaml

    packages = Path(sys.argv[1])
    install(packages)
    sys.path[:0] = [str(packages), os.getcwd()]
    importlib.import_module("bettersynth_operators")
    registered = importlib.import_module("data_juicer.ops.base_op").OPERATORS.modules
    dataset_class = importlib.import_module("datasets").Dataset
    recipe = yaml.safe_load(Path("recipe.yaml").read_text(encoding="utf-8"))
    source = Path(recipe["dataset_path"])
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["images"] = [str(source.parent / path) for path in row["images"]]
        row["__dj__stats__"] = {}
    data = dataset_class({name: [row[name] for row in rows] for name in rows[0]})
    for step in recipe["process"]:
        for name, params in step.items():
            operator = registered[name](**(params or {})) if name in registered else _theirs(name, params or {})
            data = _apply(operator, data)
    print(
        json.dumps([dict(zip(data.column_names, row, strict=True)) for row in zip(*data.columns.values(), strict=True)])
    )


def _apply(operator: Any, data: Any) -> Any:
    base = sys.modules["data_juicer.ops.base_op"]
    if isinstance(operator, base.Selector):
        return operator.process(data)
    done: dict[str, list[Any]] = {name: [] for name in data.column_names}
    for start in range(0, len(data), _BATCH):
        part = data[start : start + _BATCH]
        if isinstance(operator, base.Filter):
            part = operator.compute_stats_batched(part)
            kept = list(operator.process_batched(part))
            part = {n: [value for value, stays in zip(v, kept, strict=True) if stays] for n, v in part.items()}
        else:
            part = operator.process_batched(part)
        for name, values in part.items():
            done[name] += values
    return type(data)(done)


def _theirs(name: str, params: dict[str, Any]) -> Any:
    """One of Data-Juicer's own operators, played by ours."""
    from bettersynth_operators.settings import QUARANTINE, SETTINGS  # type: ignore[import-not-found]

    from bettersynth.ops._catalog import operator_class
    from bettersynth.ops.base import Filter, GlobalOperator
    from bettersynth.ops.foreign import _bridge

    kinds = {Filter: _bridge.RowFilter, GlobalOperator: _bridge.Chooser}
    base = next((made for kind, made in kinds.items() if issubclass(operator_class(name), kind)), _bridge.RowMapper)
    operator = type("Played", (base,), {"operator": name})()
    operator.set_up(0, params, SETTINGS, QUARANTINE)
    return operator


if __name__ == "__main__":
    main()
