"""Values that are plainly right are taken as pydantic would take them; everything else is left to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from bettersynth.config.judge import judge
from bettersynth.config.load import Document, field_names
from bettersynth.config.plain import plainly
from bettersynth.config.recipe_keys import DatasetSource, RecipeKeys
from bettersynth.ops._catalog import operator_class

_DOCUMENT = Document("r.yaml", {})
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["load", "any", "default", "open", "\ud800", "图", 2**53, 2**53 + 1, 2**64, -0.0, 1e308]),
    st.lists(st.text(max_size=2), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
_NAMES = ("image_shape_filter", "image_size_filter", "word_repetition_filter", "document_minhash_deduplicator")
_MODELS = [RecipeKeys, DatasetSource, *map(operator_class, _NAMES)]


@given(st.data())
def test_what_is_plainly_right_is_what_pydantic_makes_of_it(data: st.DataObject) -> None:
    model: Any = data.draw(st.sampled_from(_MODELS))
    names = data.draw(st.lists(st.sampled_from(field_names(model)), max_size=3, unique=True))
    given_values = {name: data.draw(_VALUES, label=name) for name in names}
    found = plainly(model, given_values)
    if found is not None:
        judged, problems = judge(model, given_values, _DOCUMENT, ())
        assert not problems and repr(found) == repr(judged)  # repr tells 1 from 1.0


@pytest.mark.parametrize(
    "values",
    [{"np": 0}, {"np": True}, {"seed": 1.5}, {"track": "closed"}, {"max_failed_ratio": 1.1}, {"trace_num": None}],
)
def test_what_is_wrong_is_not_accepted(values: dict[str, Any]) -> None:
    assert plainly(RecipeKeys, values) is None and judge(RecipeKeys, values, _DOCUMENT, ())[1]


def test_usual_recipes_and_steps_are_plain() -> None:
    keys = plainly(RecipeKeys, {"project_name": "a", "np": 2, "max_failed_ratio": 0, "text_keys": "t", "seed": 1})
    assert keys is not None and keys.text_keys == "t" and repr(keys.max_failed_ratio) == "0.0"
    for name, values in (
        ("image_shape_filter", {"min_width": 1, "any_or_all": "all"}),
        ("document_minhash_deduplicator", {"tokenization": "space", "jaccard_threshold": 0.7, "lowercase": True}),
    ):
        assert plainly(operator_class(name), values) is not None


@dataclass(frozen=True)
class _Told:
    low: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class _ToldByDefault:
    low: int = Field(1, ge=1)


@dataclass(frozen=True)
class _Strict:
    __pydantic_config__ = {"extra": "forbid"}
    low: int = 1


@dataclass(frozen=True)
class _Needed:
    low: int
    kind: Literal["a"] = "a"
    more: list[int] = field(default_factory=list)


def test_where_pydantic_has_been_told_more_it_is_asked() -> None:
    assert all(plainly(model, {"low": 2}) is None for model in (_Told, _ToldByDefault, _Strict))
    assert plainly(_Needed, {"low": 2}) == _Needed(2) and plainly(_Needed, {"kind": "a"}) is None
