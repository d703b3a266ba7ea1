"""Values that are plainly of their field's type, so that nobody need be asked about them."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

M = TypeVar("M")
_NOT_PLAIN = object()
_EXACT = 2**53  # whole numbers up to here are numbers with a fraction, too
_BOUNDS = {"ge": "__ge__", "gt": "__gt__", "le": "__le__", "lt": "__lt__"}


def plainly(model: type[M], data: Mapping[str, Any]) -> M | None:
    """A dataclass from texts, numbers, truth values and nulls that its fields take as they are.

    None for everything else, right or wrong: other models, nested values, values out of bounds, missing ones. What is
    accepted here equals what pydantic makes of it in strict mode.
    """
    if not dataclasses.is_dataclass(model) or hasattr(model, "model_fields"):
        return None
    kinds = _kinds(model)
    values = {}
    for spec in dataclasses.fields(model):
        if spec.name in data:
            value = _plain(data[spec.name], kinds.get(spec.name))
            if value is _NOT_PLAIN or not _is_inside(value, spec.metadata):
                return None
            values[spec.name] = value
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            return None
    return model(**values)


@lru_cache(maxsize=512)
def _kinds(model: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; none where pydantic has been told more than these say."""
    told = [name for cls in model.__mro__ for name, value in vars(cls).items() if _is_pydantics(name, value)]
    told += [spec.name for spec in dataclasses.fields(model) if _is_pydantics("", spec.default)]
    try:
        return {} if told else typing.get_type_hints(model, include_extras=True)
    except NameError:  # a type that only type checkers import
        return {}


def _is_pydantics(name: str, value: Any) -> bool:
    return name.startswith("__pydantic") or type(value).__module__.startswith("pydantic")


def _plain(value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        parts = typing.get_args(kind)
        # A whole number that may also be one with a fraction stays whole.
        exact = [part for part in parts if part is type(value)]
        found = (_plain(value, part) for part in exact or parts)
        return next((each for each in found if each is not _NOT_PLAIN), _NOT_PLAIN)
    if origin is typing.Literal:
        return value if type(value) is str and value in typing.get_args(kind) else _NOT_PLAIN
    if kind is float and type(value) is int:
        return float(value) if abs(value) <= _EXACT else _NOT_PLAIN
    return value if kind is type(value) and _is_common(value) else _NOT_PLAIN


def _is_common(value: Any) -> bool:
    """Whether a value is written the same way everywhere: no infinity, no number or letter that JSON may not know."""
    if type(value) is str:
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in (bool, type(None)) or (type(value) is int and abs(value) <= _EXACT)


def _is_inside(value: Any, bounds: Mapping[str, Any]) -> bool:
    return value is None or all(getattr(value, _BOUNDS[name])(bounds[name]) for name in bounds if name in _BOUNDS)
