"""Our operators as Data-Juicer's: imported by exported packages inside Data-Juicer's process, never by our engine.

Rows carry a hidden text column with the row key and exact stats, because the default executor rounds every number that
passes through its own stats. A row that fails is taken out alone and written to ``quarantine.jsonl`` beside the
package, with its error; Data-Juicer would drop its whole batch and count no error.

Source: subclasses the public base classes of py-data-juicer 1.6.1.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bettersynth.core.sample import RowKey
from bettersynth.formats.data_juicer import Tokens
from bettersynth.ops._catalog import operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import (
    ID,
    IMAGES,
    KEY,
    RECORD,
    STATS,
    TEXT,
    Batch,
    FittedFilter,
    Generator,
    RangeFilter,
    with_column,
)

_base = importlib.import_module("data_juicer.ops.base_op")
STATE, DJ_STATS = "__bettersynth__", "__dj__stats__"
_AT_ONCE = 256
_CHILDREN_PER_STEP, _STEPS_WITH_CHILDREN = 1000, 100  # as the engine numbers children, so that seeds are equal
Rows = list[dict[str, Any]]


def build(name: str, params: Mapping[str, Any]) -> Any:
    """One of our operators from recipe parameters."""
    from pydantic import TypeAdapter

    operator = TypeAdapter(operator_class(name)).validate_json(json.dumps(params), strict=True)
    if isinstance(operator, RangeFilter) and (operator.adaptive_threshold is not None or operator.mark_only):
        return FittedFilter(inner=operator)
    return operator


@lru_cache(maxsize=4)
def context(settings: str) -> OpContext:
    """The context of a process: models and seeds are shared by all steps."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of a parent do not survive in Data-Juicer's forks
    values = json.loads(settings)
    tokens = values.pop("tokens")
    return OpContext(**values, tokens=Tokens(tuple(tokens.pop("images")), **tokens))


class _Step:
    """What the classes below share: the operator, the batch, and rows that fail alone."""

    operator = ""

    def set_up(self, step: int, params: Mapping[str, Any], settings: Mapping[str, Any], quarantine: str) -> None:
        """Remember plain values only: Data-Juicer copies operators into its workers and into file names."""
        self.step, self.settings = step, json.dumps(settings)
        self.given, self.quarantine = json.dumps(params), quarantine

    @property
    def ours(self) -> Any:
        """The operator."""
        return _built(self.operator, self.given)

    @property
    def ctx(self) -> OpContext:
        """The context."""
        return context(self.settings)

    def guarded(self, work: Callable[[Batch], Any], rows: Rows) -> list[tuple[Rows, Any]]:
        """(rows, result) pairs; a row that fails is written to the quarantine file and left out."""
        if not rows:
            return []
        try:
            found = [(rows, work(to_batch(rows, with_record=RECORD in self.ours.needs())))]
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a row does to an operator, the others go on
            if len(rows) > 1:
                middle = len(rows) // 2
                return self.guarded(work, rows[:middle]) + self.guarded(work, rows[middle:])
            self._set_aside(rows[0], error)
            return []
        finally:
            self.ctx.forget_images()
        return found

    def _set_aside(self, row: dict[str, Any], error: Exception) -> None:
        state = json.loads(row[STATE])
        record = {key: value for key, value in row.items() if key not in (STATE, DJ_STATS)}
        line = {
            "key": str(RowKey(*state["key"])),
            "id": str(row.get("id", "")),
            "operator": self.operator or "read",
            "error": f"{type(error).__name__}: {error}"[:500],
            "record": record,
        }
        data = json.dumps(line, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        handle = os.open(self.quarantine, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, data)  # one write: lines of several workers do not mix
        finally:
            os.close(handle)


@lru_cache(maxsize=64)
def _built(name: str, params: str) -> Any:
    return build(name, json.loads(params))


def to_batch(rows: Rows, *, with_record: bool = False) -> Batch:
    """Rows of Data-Juicer in our operators' view; with all their fields for an operator that reads those."""
    states = [json.loads(row[STATE]) for row in rows]
    keys = [state["key"] for state in states]
    names = [str(RowKey(*key)) for key in keys]
    columns = {
        KEY[0]: pa.array([key[0] for key in keys], pa.int32()),
        KEY[1]: pa.array([key[1] for key in keys], pa.int64()),
        KEY[2]: pa.array([key[2] for key in keys], pa.int64()),
        ID: pa.array([str(r["id"]) if r.get("id") is not None else n for r, n in zip(rows, names, strict=True)]),
        TEXT: pa.array([row[TEXT] for row in rows], pa.string()),
        IMAGES: pa.array([row.get(IMAGES) or [] for row in rows], pa.list_(pa.string())),
        RECORD: pa.array([_record(row) if with_record else "{}" for row in rows], pa.string()),
    }
    stats = [{**(row.get(DJ_STATS) or {}), **state["stats"]} for row, state in zip(rows, states, strict=True)]
    for name in dict.fromkeys(name for row in stats for name in row):
        columns[STATS + name] = pa.array([row.get(name) for row in stats])
    return pa.RecordBatch.from_pydict(columns)


def _record(row: Mapping[str, Any]) -> str:
    fields = {key: value for key, value in row.items() if key not in (STATE, DJ_STATS)}
    return json.dumps(fields, default=str, ensure_ascii=False)


def with_stats(rows: Rows, columns: Mapping[str, Any]) -> None:
    """Write stats into rows: exact ones into the hidden column, and Data-Juicer's own for its trace and export."""
    values = {name: column.to_pylist() for name, column in columns.items()}
    for place, row in enumerate(rows):
        state, new = json.loads(row[STATE]), {name: column[place] for name, column in values.items()}
        row[STATE] = json.dumps({**state, "stats": {**state["stats"], **new}})
        if DJ_STATS in row:
            row[DJ_STATS] = {**(row[DJ_STATS] or {}), **new}


def columns_of(rows: Rows, names: Iterable[str]) -> dict[str, list[Any]]:
    """Rows as columns."""
    return {name: [row.get(name) for row in rows] for name in names}


def rows_of(samples: Mapping[str, Any]) -> Rows:
    """Columns as rows."""
    names = list(samples)
    return [dict(zip(names, values, strict=True)) for values in zip(*(samples[name] for name in names), strict=True)]


class RowFilter(_base.Filter, _Step):  # type: ignore[misc, name-defined]
    """A filter of ours. The decision travels as text beside the stats, so that no rounding touches it."""

    _batched_op = True

    def compute_stats_batched(self, samples: Any, *args: Any, **kwargs: Any) -> Any:
        """Stats and decision."""
        done: Rows = []
        for part, scored in self.guarded(lambda batch: self._score(batch), rows_of(samples)):
            with_stats(part, scored[0])
            for row, stays in zip(part, scored[1], strict=True):
                row[STATE] = json.dumps({**json.loads(row[STATE]), "kept": bool(stays)})
            done += part
        return columns_of(done, samples)

    def _score(self, batch: Batch) -> tuple[dict[str, Any], Any]:
        stats = {name: _plain(values) for name, values in self.ours.score(batch, self.ctx).items()}
        return stats, self.ours.keep(stats)

    def process_batched(self, samples: Any) -> Any:
        """The decision taken before."""
        return [json.loads(state)["kept"] for state in samples[STATE]]


class RowMapper(_base.Mapper, _Step):  # type: ignore[misc, name-defined]
    """A mapper or generator of ours."""

    _batched_op = True

    def process_batched(self, samples: Any, *args: Any, **kwargs: Any) -> Any:
        """The rewritten rows, or those made from them."""
        done: Rows = []
        work = self._make if isinstance(self.ours, Generator) else self._apply
        for part, found in self.guarded(work, rows_of(samples)):
            batch, source, is_child = found
            texts, images = batch.column(TEXT).to_pylist(), batch.column(IMAGES).to_pylist()
            rows = [dict(part[place]) for place in source]
            before = [json.loads(row[STATE])["stats"] for row in rows]
            for row, text, paths in zip(rows, texts, images, strict=True):
                row[TEXT] = text
                if IMAGES in row:
                    row[IMAGES] = paths
            names = [name.removeprefix(STATS) for name in batch.schema.names if name.startswith(STATS)]
            new = {n: batch.column(STATS + n) for n in names if any(n not in old for old in before) or n in _new(self)}
            with_stats(rows, new)
            number_children(rows, source, is_child, self.step)
            done += rows
        return columns_of(done, samples)

    def _apply(self, batch: Batch) -> tuple[Batch, Any, Any]:
        return self.ours.apply(batch, self.ctx), range(batch.num_rows), [False] * batch.num_rows

    def _make(self, batch: Batch) -> tuple[Batch, Any, Any]:
        made = self.ours.make(batch, self.ctx)
        return made.batch, made.source.tolist(), made.is_child.tolist()


def _new(step: Any) -> set[str]:
    return {name.removeprefix(STATS) for name in step.ours.adds() if name.startswith(STATS)}


def number_children(rows: Rows, source: Any, is_child: Any, step: int) -> None:
    """Give child rows the keys that the engine gives them."""
    running, last = 0, None
    for row, place, child in zip(rows, source, is_child, strict=True):
        running, last = (0 if place != last else running), place
        if child:
            running += 1
            state = json.loads(row[STATE])
            parent = int(state["key"][2]) * _STEPS_WITH_CHILDREN * _CHILDREN_PER_STEP
            state["key"][2] = parent + (step + 1) * _CHILDREN_PER_STEP + running
            row[STATE] = json.dumps(state)


class Chooser(_base.Selector, _Step):  # type: ignore[misc, name-defined]
    """Anything of ours that decides over all rows: de-duplication, selection, fitted thresholds."""

    def process(self, dataset: Any) -> Any:
        """Rows that stay, in order, perhaps several times, with the stats the decision brought."""
        names, kept, partials = dataset.column_names, [], []
        for start in range(0, len(dataset), _AT_ONCE):
            rows = rows_of(dataset[start : start + _AT_ONCE])
            for part, found in self.guarded(lambda batch: self.ours.partial(batch, self.ctx), rows):
                ids = pa.array([str(row.get("id", "")) for row in part])
                partials.append(pa.table({ID: ids, **{key: _plain(values) for key, values in found.items()}}))
                kept += part
        if not kept:
            return dataset.select([])
        verdict = self.ours.reduce(pa.concat_tables(partials, promote_options="permissive"), self.ctx)
        with_stats(kept, {name: _plain(values) for name, values in verdict.columns.items()})
        source = np.repeat(np.arange(len(kept)), verdict.copies)
        rows = [dict(kept[place]) for place in source]
        if TEXT in self.ours.writes:
            batch = to_batch(kept)
            for name, values in verdict.fields.items():
                batch = with_column(batch, name, _plain(values))
            texts = self.ours.finish(batch, self.ctx).column(TEXT).to_pylist()
            for row, place in zip(rows, source.tolist(), strict=True):
                row[TEXT] = texts[place]
        number_children(rows, source.tolist(), np.r_[False, source[1:] == source[:-1]].tolist(), self.step)
        return as_dataset(rows, names, dataset)


def as_dataset(rows: Rows, names: list[str], like: Any) -> Any:
    """Rows as Data-Juicer's data set, with the columns and types of another."""
    nested = importlib.import_module("data_juicer.core.data").NestedDataset
    plain = importlib.import_module("datasets").Dataset
    columns = columns_of(rows, names)
    try:
        made = plain.from_dict(columns, features=like.features)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError):
        made = plain.from_dict(columns)  # a stat that was not there before changes the type of the stats column
    return nested(made)


class Start(_base.Selector, _Step):  # type: ignore[misc, name-defined]
    """First step: numbers the rows, points pictures to their folder, sets rows with missing pictures aside."""

    def process(self, dataset: Any) -> Any:
        """The rows with their hidden column."""
        settings = json.loads(self.given)
        rows, done = rows_of(dataset[:]), []
        for number, row in enumerate(rows, 1):
            row[STATE] = json.dumps({"key": [0, number, 0], "stats": {}})
            row[IMAGES] = [_moved(path, settings) for path in row.get(IMAGES) or []]
            lost = [path for path in row[IMAGES] if not Path(path).is_file()]
            if lost and settings["on_missing_image"] == "quarantine":
                self._set_aside(row, FileNotFoundError(f"image not found: {lost[0]}"))
            else:
                done.append(row)
        nested = importlib.import_module("data_juicer.core.data").NestedDataset
        plain = importlib.import_module("datasets").Dataset
        had_images = IMAGES in dataset.column_names
        names = [name for name in (*dataset.column_names, STATE) if name != IMAGES or had_images]
        return nested(plain.from_dict(columns_of(done, names)))


def _moved(path: str, settings: Mapping[str, Any]) -> str:
    """Data-Juicer joins relative paths to the data file's folder; the recipe may name another."""
    root, folder = settings.get("image_root"), settings.get("dataset_folder")
    if root and folder and Path(path).is_relative_to(folder):
        return str(Path(root) / Path(path).relative_to(folder))
    return path


class Finish(_base.Selector, _Step):  # type: ignore[misc, name-defined]
    """Last step: takes the hidden column out."""

    def process(self, dataset: Any) -> Any:
        """The rows as they are to be written."""
        nested = importlib.import_module("data_juicer.core.data").NestedDataset
        return nested(dataset.remove_columns([STATE]))


def _plain(values: Any) -> Any:
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return values if isinstance(values, pa.Array) else pa.array(values)
