"""Selectors by a field's value: what Data-Juicer's answers (test_image_parity) do not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from bettersynth.core.errors import DataError
from bettersynth.ops._fields import field_values, to_number
from bettersynth.ops.selectors.frequency_specified_field_selector import FrequencySpecifiedFieldSelector, value_key
from bettersynth.ops.selectors.range_specified_field_selector import RangeSpecifiedFieldSelector
from bettersynth.ops.selectors.tags_specified_field_selector import TagsSpecifiedFieldSelector
from bettersynth.ops.selectors.topk_specified_field_selector import TopkSpecifiedFieldSelector


def with_records(rows: Any, records: list[dict[str, Any]]) -> Any:
    column = pa.array([orjson.dumps(record).decode() for record in records])
    return rows.set_column(rows.schema.get_field_index("__record__"), "__record__", column)


def kept(operator: Any, rows: Any, ctx: Any) -> list[int]:
    operator.check()
    return np.flatnonzero(operator.reduce(pa.table(operator.partial(rows, ctx)), ctx).copies).tolist()


def test_stats_of_an_earlier_step_come_before_those_of_the_record(ctx: Any, batch: Any) -> None:
    records = [{"__dj__stats__": {"old": [n], "score": 9 - n}} for n in range(3)]
    rows = with_records(batch(["a"] * 3, score=[[0.1, 0.5], [0.9], []]), records)
    assert kept(TopkSpecifiedFieldSelector(field_key="__dj__stats__.score", topk=1), rows, ctx) == [1]
    assert kept(TopkSpecifiedFieldSelector(field_key="__dj__stats__.old", topk=1), rows, ctx) == [2]
    assert field_values(rows, "text") == (["a"] * 3, [True] * 3)


def test_a_misspelt_field_is_an_error_and_not_an_empty_result(ctx: Any, batch: Any) -> None:
    rows = with_records(batch(["a", "b"]), [{"n": 1}, {"n": 2}])
    for operator in (
        TopkSpecifiedFieldSelector(field_key="m", topk=1),
        RangeSpecifiedFieldSelector(field_key="m.x", lower_rank=1, upper_rank=2),
        FrequencySpecifiedFieldSelector(field_key="m", topk=1),
        TagsSpecifiedFieldSelector(field_key="m", target_tags=("1",)),
    ):
        with pytest.raises(DataError, match="no row has the field"):
            kept(operator, rows, ctx)
    assert kept(TopkSpecifiedFieldSelector(field_key="m", topk=1), rows.slice(0, 1), ctx) == [0]


def test_what_cannot_be_compared_is_refused(ctx: Any, batch: Any) -> None:
    mixed = with_records(batch(["a", "b"]), [{"n": 1}, {"n": "2"}])
    with pytest.raises(DataError, match="texts and other values"):
        kept(TopkSpecifiedFieldSelector(field_key="n", topk=1), mixed, ctx)
    lists = with_records(batch(["a", "b"]), [{"n": [1]}, {"n": [2]}])
    for operator in (TopkSpecifiedFieldSelector(field_key="n", topk=1), FrequencySpecifiedFieldSelector(field_key="n")):
        with pytest.raises(DataError, match="field 'n'"):
            kept(operator, lists, ctx)
    for wrong in ({"top_ratio": 1.5}, {"topk": 0}):
        with pytest.raises(ValueError, match="must be"):
            TopkSpecifiedFieldSelector(field_key="n", **wrong).check()
    with pytest.raises(ValueError, match="percentiles"):
        RangeSpecifiedFieldSelector(field_key="n", lower_percentile=2).check()
    with pytest.raises(ValueError, match="target_tags"):
        TagsSpecifiedFieldSelector(field_key="n").check()


def test_values_and_numbers() -> None:
    assert value_key(1, "f") == value_key(1.0, "f") == value_key(True, "f") != value_key("1", "f")
    assert value_key(None, "f") != value_key("", "f") and value_key(0.5, "f") != value_key(0, "f")
    assert [to_number(v) for v in ("1e1", " 7 ", "x", None, [], [1, 2], {"a": 1})] == [
        10,
        7,
        None,
        None,
        None,
        1.5,
        None,
    ]
