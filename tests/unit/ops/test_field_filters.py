"""Filters by fields: what Data-Juicer's answers (test_rows_parity) do not say."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pytest

from bettersynth.core.errors import DataError
from bettersynth.ops._conditions import compile_condition
from bettersynth.ops.base import Adaptive, FittedFilter
from bettersynth.ops.filters.general_field_filter import GeneralFieldFilter
from bettersynth.ops.filters.specified_field_filter import SpecifiedFieldFilter
from bettersynth.ops.filters.specified_numeric_field_filter import SpecifiedNumericFieldFilter


def with_records(rows: Any, records: list[dict[str, Any]]) -> Any:
    column = pa.array([orjson.dumps(record).decode() for record in records])
    return rows.set_column(rows.schema.get_field_index("__record__"), "__record__", column)


def kept(operator: Any, rows: Any, ctx: Any) -> list[bool]:
    operator.check()
    return list(operator.keep(operator.score(rows, ctx)).tolist())


def test_stats_and_what_steps_said_of_rows_are_fields_too(ctx: Any, batch: Any) -> None:
    rows = with_records(batch(["a"] * 3, score=[0.1, 0.5, 0.9]), [{"__dj__meta__": {"x": n}} for n in range(3)])
    meta = pa.array(['{"y": "a"}', None, '{"x": 5}'])
    rows = rows.append_column("__dj__meta__", meta)
    assert kept(SpecifiedNumericFieldFilter(field_key="__dj__stats__.score", min_value=0.3), rows, ctx) == [0, 1, 1]
    assert kept(GeneralFieldFilter(filter_condition="__dj__stats__.score >= 0.5"), rows, ctx) == [0, 1, 1]
    assert kept(GeneralFieldFilter(filter_condition="__dj__meta__.x in [1, 5]"), rows, ctx) == [0, 1, 1]
    assert kept(GeneralFieldFilter(filter_condition="__dj__meta__.y == 'a'"), rows, ctx) == [1, 0, 0]
    assert kept(SpecifiedFieldFilter(field_key="__dj__meta__.x", target_value=(0, 5)), rows, ctx) == [1, 0, 1]


def test_texts_are_seen_as_earlier_steps_left_them(ctx: Any, batch: Any) -> None:
    rows = with_records(batch(["new", "other"]), [{"text": "old"}, {"text": "old"}])
    assert kept(SpecifiedFieldFilter(field_key="text", target_value=("new",)), rows, ctx) == [True, False]
    assert kept(GeneralFieldFilter(filter_condition="text == 'old'"), rows, ctx) == [False, False]


def test_two_numeric_steps_keep_stats_of_their_own(batch: Any) -> None:
    assert SpecifiedNumericFieldFilter(field_key="meta.a").adds() == ("stats.meta.a",)
    marking = SpecifiedNumericFieldFilter(field_key="b", mark_only=True)
    assert marking.adds() == ("stats.b", "stats.b_failed")


def test_the_range_can_follow_the_data(ctx: Any, batch: Any) -> None:
    rows = with_records(batch(["a"] * 5), [{"n": n + 1} for n in range(5)])
    inner = SpecifiedNumericFieldFilter(field_key="n", adaptive_threshold=Adaptive(method="quantile", low=0.4))
    fitted = FittedFilter(inner=inner)
    assert fitted.reduce(pa.table(fitted.partial(rows, ctx)), ctx).copies.tolist() == [0, 0, 1, 1, 1]


def test_a_row_without_the_field_fails_alone(ctx: Any, batch: Any) -> None:
    rows = with_records(batch(["a", "b"]), [{"n": 1}, {}])
    for operator in (SpecifiedFieldFilter(field_key="n"), SpecifiedNumericFieldFilter(field_key="n")):
        assert kept(operator, rows.slice(0, 1), ctx) == [True]
        with pytest.raises(DataError, match="no field 'n'"):
            operator.score(rows.slice(1), ctx)


def test_without_a_field_nothing_is_compared() -> None:
    for operator in (SpecifiedFieldFilter(), SpecifiedNumericFieldFilter()):
        with pytest.raises(ValueError, match="field_key is needed"):
            operator.check()


@pytest.mark.parametrize(
    "text", ["a +", "a + 1", "f(a)", "a[0]", "a is None", "a if b else c", "lambda: a", "\0", "x =1"]
)
def test_a_condition_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="condition"):
        GeneralFieldFilter(filter_condition=text).check()


def test_a_condition_names_its_fields() -> None:
    holds, names = compile_condition("a.b > 1 and not c")
    assert names == {"a", "c"} and holds({"a": {"b": 2}, "c": 0}) and not holds({"a": 3})
