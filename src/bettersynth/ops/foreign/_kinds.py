"""Operators of ours that stand for one of Data-Juicer's each, or of the user's for it; classes are made from facts.

Instances travel between processes as their facts and values, because a class is made where it is needed. Only
parameters that the recipe gives are passed on; the operator's own defaults apply to the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Union

import numpy as np
import orjson
import pyarrow as pa

from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import (
    IMAGES,
    RECORD,
    STATS,
    TEXT,
    Batch,
    Deduplicator,
    Filter,
    Generator,
    GlobalOperator,
    Made,
    Mask,
    Operator,
    Selector,
    Stats,
    Verdict,
    with_column,
)
from bettersynth.ops.foreign._facts import Facts, known_facts
from bettersynth.ops.foreign._process import Died, find_python, server
from bettersynth.ops.foreign._rows import from_rows, to_rows, tokens_of

DEFAULT = "(Data-Juicer's default)"
GROUP = "data_juicer_group"
PYTHON = "data_juicer_python"


class _Known:
    """What all of them share. Holds no fields, so that it can stand beside any kind of operator."""

    __slots__ = ()
    facts: ClassVar[Facts]

    @property
    def name(self) -> str:
        """The name in Data-Juicer's registry."""
        return self.facts.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self.facts, {name: value for name, value in values(self).items() if value != DEFAULT})


def values(operator: Any) -> dict[str, Any]:
    """All fields."""
    return {field.name: getattr(operator, field.name) for field in dataclasses.fields(operator)}


def given(operator: Any) -> dict[str, Any]:
    """The parameters that the recipe gives."""
    return {name: value for name, value in values(operator).items() if name != PYTHON and value != DEFAULT}


def header_of(operator: Any, do: str, ctx: OpContext) -> dict[str, Any]:
    """What a request says of the operator."""
    facts: Facts = operator.facts
    header = {"do": do, "operator": facts.name, "kind": facts.kind, "params": given(operator)}
    custom = {"custom": dataclasses.asdict(facts.custom)} if facts.custom is not None else {}
    return {**header, **custom, "tokens": tokens_of(ctx)}


def check(operator: Any) -> None:
    """Refuse what the adapter has no place for, missing parameters, and a missing Data-Juicer.

    Raises:
        ConfigError, MissingExtraError: with what to do.
    """
    facts: Facts = operator.facts
    if facts.refusal:
        raise ConfigError(t("{name} has no place here: it {why}", name=facts.name, why=t(facts.refusal)))
    missing = [name for name, about in facts.params.items() if about.get("needed") and name not in given(operator)]
    if missing:
        raise ConfigError(t("{name} needs {keys}", name=facts.name, keys=", ".join(missing)))
    find_python(operator.data_juicer_python)


def ask_rows(operator: Any, batch: Batch, ctx: OpContext, *, do: str = "work") -> list[dict[str, Any]]:
    """Answers for every row of a batch, in order of the rows they come from.

    Raises:
        DataError: a row failed. With one row in the batch its error is told; with more the engine halves the batch, and
            the halves are answered from memory.
    """
    process = server(find_python(operator.data_juicer_python))
    rows = to_rows(batch, ctx)
    header = header_of(operator, do, ctx)
    # The row as sent is the memory's key: equal rows of equal operators have equal answers.
    about = orjson.dumps(header)
    keys = [(about, seed, row) for row, seed in rows]
    known = process.answers
    if not all(key in known for key in keys):
        known = dict(zip(keys, _ask(process, header, rows, ctx), strict=True))
        process.answers = known if any(found.get("error") for row in known.values() for found in row) else {}
    answers = [known[key] for key in keys]
    errors = [found["error"] for row in answers for found in row if found.get("error")]
    if errors:
        raise DataError(errors[0])
    return [{**found, "source": place} for place, row in enumerate(answers) for found in row]


def _ask(
    process: Any, header: dict[str, Any], rows: list[tuple[bytes, int]], ctx: OpContext
) -> list[list[dict[str, Any]]]:
    """For each row what became of it; when the process dies the rows are sent one by one."""
    table = pa.table({"row": pa.array([row.decode() for row, _ in rows]), "seed": [seed for _, seed in rows]})
    try:
        said, found = process.ask(header, table)
    except Died as error:
        if len(rows) == 1:
            return [[{"source": 0, "error": t("Data-Juicer's process died on this row: {why}", why=str(error))}]]
        return [answer for row in rows for answer in _ask(process, header, [row], ctx)]
    ctx.elsewhere_cpu_s += said["cpu_s"]
    answers: list[list[dict[str, Any]]] = [[] for _ in rows]
    for line in found.to_pylist():
        answers[line["source"]].append(line)
    return answers


class ForeignFilter(_Known):
    """Stats and decision come from the operator; the decision is a stat of ours, ``NAME_kept``."""

    __slots__ = ()

    def score(self: Any, batch: Batch, ctx: OpContext) -> Stats:
        """Its stats, and whether it keeps the row."""
        answers = ask_rows(self, batch, ctx)
        stats = [orjson.loads(found["stats"]) for found in answers]
        names = dict.fromkeys(name for row in stats for name in row)
        columns = {name: _column([row.get(name) for row in stats]) for name in names}
        return {**columns, f"{self.name}_kept": pa.array([int(found["kept"]) for found in answers], pa.int64())}

    def keep(self: Any, stats: Stats) -> Mask:
        """As the operator decided."""
        return np.asarray(stats[f"{self.name}_kept"].to_numpy(zero_copy_only=False) == 1, bool)


class ForeignMapper(_Known):
    """Any number of rows from each row; new fields go into the record."""

    __slots__ = ()

    def make(self: Any, batch: Batch, ctx: OpContext) -> Made:
        """The operator's rows; the first one made from a row goes on under that row's key."""
        answers = ask_rows(self, batch, ctx)
        source = np.array([found["source"] for found in answers], np.int64)
        taken = batch.take(pa.array(source))
        changed = from_rows(taken, [orjson.loads(found["row"]) for found in answers], ctx)
        first = np.r_[True, source[1:] != source[:-1]] if len(source) else np.zeros(0, bool)
        return Made(changed, source, ~first)


class _Deciding(_Known):
    """Decides over all rows at once: rows are put into form in the workers, the decision is made once."""

    __slots__ = ()

    def partial(self: Any, batch: Batch, ctx: OpContext) -> Stats:
        """What the decision needs of each row, in the operator's own form."""
        answers = ask_rows(self, batch, ctx, do="work" if self.facts.kind == "deduplicator" else "rows")
        blobs: dict[str, Any] = {"blob": pa.array([found["blob"] for found in answers], pa.binary())}
        return blobs

    def decide(self: Any, partials: pa.Table, ctx: OpContext) -> dict[str, Any]:
        """The operator's answer over all rows."""
        process = server(find_python(self.data_juicer_python))
        try:
            found, _ = process.ask(header_of(self, "decide", ctx), partials.select(["blob"]).combine_chunks())
        except Died as error:
            raise BetterSynthError(t("Data-Juicer's process died"), where=self.name, got=str(error)) from error
        return dict(found)


class ForeignChooser(_Deciding):
    """A deduplicator or selector. Rows keep the data set's order, also where the operator would sort them."""

    __slots__ = ()

    def reduce(self: Any, partials: pa.Table, ctx: OpContext) -> Verdict:
        """How often each row stays."""
        places = self.decide(partials, ctx)["places"]
        copies = np.bincount(np.array(places, np.int64), minlength=partials.num_rows).astype(np.int64)
        word = "duplicate of an earlier row" if self.facts.kind == "deduplicator" else "not selected"
        return Verdict(copies, ["" if count else word for count in copies])


class ForeignGrouper(_Deciding):
    """Numbers the groups in a stat instead of making one row of each, so that no row disappears."""

    __slots__ = ()

    def reduce(self: Any, partials: pa.Table, ctx: OpContext) -> Verdict:
        """``stats.data_juicer_group`` for each row."""
        groups = self.decide(partials, ctx)["groups"]
        numbers = np.full(partials.num_rows, -1, np.int64)
        for number, places in enumerate(groups):
            numbers[np.array(places, np.int64)] = number
        kept = numbers >= 0
        return Verdict(
            kept.astype(np.int64),
            ["" if stays else "in no group" for stays in kept],
            {GROUP: pa.array(numbers)},
            {"groups": len(groups)},
        )


class ForeignAggregator(_Deciding):
    """One row for each group that a grouper numbered: the group's first row, with what was made of all as a stat."""

    __slots__ = ()

    def partial(self: Any, batch: Batch, ctx: OpContext) -> Stats:
        """Rows with the number of their group."""
        numbered = with_column(batch, "__group__", batch.column(STATS + GROUP))
        blobs: Stats = _Deciding.partial(self, numbered, ctx)
        return blobs

    def reduce(self: Any, partials: pa.Table, ctx: OpContext) -> Verdict:
        """``stats.NAME`` holds JSON."""
        copies, made = np.zeros(partials.num_rows, np.int64), [""] * partials.num_rows
        for group in self.decide(partials, ctx)["aggregated"]:
            copies[group["places"][0]] = 1
            made[group["places"][0]] = orjson.dumps(group["meta"]).decode()
        reasons = ["" if count else "aggregated into the first row of its group" for count in copies]
        return Verdict(copies, reasons, {self.name: pa.array(made)})


def _column(values: list[Any]) -> Any:
    """A stat as an Arrow array; what Arrow has no common type for becomes JSON text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else orjson.dumps(value).decode() for value in values])


_BASES: dict[str, tuple[type, type[Operator], tuple[str, ...]]] = {
    "filter": (ForeignFilter, Filter, (TEXT, IMAGES)),
    "mapper": (ForeignMapper, Generator, (TEXT, IMAGES, RECORD)),
    "deduplicator": (ForeignChooser, Deduplicator, (TEXT, IMAGES)),
    "selector": (ForeignChooser, Selector, (TEXT, IMAGES, RECORD)),
    "grouper": (ForeignGrouper, GlobalOperator, (TEXT, IMAGES, RECORD)),
    "aggregator": (ForeignAggregator, GlobalOperator, (TEXT, IMAGES, RECORD, STATS + GROUP)),
}
_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "list": list[Any], "dict": dict[str, Any]}
_NULL = type(None)


def _type(about: Mapping[str, Any]) -> Any:
    names = about.get("types") or ()
    kinds = tuple(_NULL if name == "null" else _TYPES[name] for name in names)
    return Union[kinds] if kinds else Any  # noqa: UP007 - the members are known at run time only


def kind_names(kind: str) -> set[str]:
    """Names that no parameter of such an operator may have, because its class uses them itself."""
    mixin, base, _ = _BASES.get(kind, _BASES["mapper"])
    return {name for name in (*dir(mixin), *dir(base), "facts", PYTHON) if not name.startswith("__")}


def foreign_class(name: str) -> type[Operator]:
    """The class that stands for one of Data-Juicer's operators, or of the user's for it.

    Raises:
        KeyError: there is no operator of that name.
    """
    return _class_of(known_facts()[name])


_classes: dict[tuple[str, Any], type[Operator]] = {}


def _class_of(facts: Facts) -> type[Operator]:
    key = (facts.name, facts.custom)
    if key not in _classes:
        _classes[key] = _make(facts)
    return _classes[key]


def _made_again(facts: Facts, given: Mapping[str, Any]) -> Operator:
    return _class_of(facts)(**given)


def _make(facts: Facts) -> type[Operator]:
    name = facts.name
    mixin, base, reads = _BASES.get(facts.kind, _BASES["mapper"])
    writes = {
        "filter": (f"{STATS}{name}_kept",),
        "mapper": (TEXT, IMAGES, RECORD),
        "grouper": (STATS + GROUP,),
        "aggregator": (STATS + name,),
    }
    rewrites = facts.is_one_to_one and {*facts.changes, TEXT} <= {TEXT, IMAGES} and bool(facts.changes)
    fields: list[Any] = [(key, _type(about), dataclasses.field(default=DEFAULT)) for key, about in facts.params.items()]
    fields.append((PYTHON, str | None, dataclasses.field(default=None)))
    made: type[Operator] = dataclasses.make_dataclass(
        name,
        fields,
        bases=(mixin, base),
        frozen=True,
        kw_only=True,
        slots=True,
        namespace={
            "__doc__": f"Data-Juicer's {name}, run in a process of its own.",
            "__module__": __name__,
            "facts": facts,
            "reads": reads,
            "writes": writes.get(facts.kind, ()),
            "track": "challenge" if facts.kind != "mapper" or rewrites else "open",
            "check": check,
            "code_digest": facts.custom.digest if facts.custom is not None else "",
        },
    )
    return made
