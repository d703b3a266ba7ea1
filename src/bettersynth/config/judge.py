"""What pydantic says of a document's values, as errors with the document's lines."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from bettersynth.config.load import Document, Location, field_names
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.fingerprint import canonical_json
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean

M = TypeVar("M")


def judge(
    model: type[M], data: Mapping[str, Any], document: Document, at: Location
) -> tuple[M | None, list[BetterSynthError]]:
    """``model`` (a pydantic model or a plain dataclass) made from ``data``, or None and what is wrong."""
    try:
        anything: Any = model
        value: M = _adapter(anything).validate_json(canonical_json(data), strict=True)
        return value, []
    except ValidationError as error:
        return None, [_as_config_error(item, document, at, model) for item in error.errors()]
    except (TypeError, ValueError) as error:
        return None, [ConfigError(t("value not accepted"), where=document.where(at), got=str(error))]


@lru_cache(maxsize=512)
def _adapter(model: Any) -> TypeAdapter[Any]:
    """The model's checker; it takes milliseconds to make, and a recipe's steps are checked more than once."""
    return TypeAdapter(model)


_UNION_TAGS = {"str", "int", "float", "bool", "none", "dict", "list"}


def _as_config_error(item: Any, document: Document, at: Location, model: Any) -> BetterSynthError:
    location: Location = (*at, *item["loc"])
    while location and location not in document.lines and (_is_tag(location[-1]) and len(location) > len(at)):
        location = location[:-1]
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        nested = _model_at(model, item["loc"][:-1])
        hint = did_you_mean(str(item["loc"][-1]), field_names(nested)) if nested is not None else None
        return ConfigError(
            t("unknown key '{name}'", name=item["loc"][-1]), where=document.where((*at, *item["loc"])), hint=hint
        )
    if item["type"] in ("missing", "missing_argument"):
        return ConfigError(t("missing key '{name}'", name=item["loc"][-1]), where=document.where(location))
    message = _expected(item)
    got = item.get("input")
    shown = None if isinstance(got, dict) else got
    return ConfigError(t("value not accepted"), where=document.where(location), got=shown, expected=message)


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of: {names}",
    "finite_number": "a finite number",
}
"""What pydantic finds wrong, by its type, in words that can be translated."""


def _expected(item: Any) -> str:
    template = _EXPECTED.get(item["type"])
    if template is None:
        return str(item["msg"]).removeprefix("Value error, ")
    facts = dict(item.get("ctx") or {})
    return t(template, names=facts.pop("expected", "").replace(" or ", ", "), **facts)


def _is_tag(part: str | int) -> bool:
    return isinstance(part, str) and (part in _UNION_TAGS or "[" in part or "-" in part)


def _model_at(model: Any, location: Location) -> Any:
    """The nested model a path leads to, or None; Optional and list wrappers are looked through."""
    for part in location:
        if _is_model(model) and part in field_names(model):
            model = _annotation(model, str(part))
        while typing.get_origin(model) in (typing.Union, types.UnionType, list, tuple, dict):
            inner = [kind for kind in typing.get_args(model) if _is_model(kind)]
            if not inner:
                return None
            model = inner[0]
    return model if _is_model(model) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _annotation(model: Any, name: str) -> Any:
    return model.model_fields[name].annotation if issubclass(model, BaseModel) else typing.get_type_hints(model)[name]
