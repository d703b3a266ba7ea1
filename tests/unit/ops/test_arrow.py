"""Arrow's functions by name do what the methods of arrays do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.ops import _arrow

LISTS = st.lists(st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3), max_size=8)


@pytest.mark.parametrize("kind", ["bool", "int32", "int64", "float64", "uint8"])
@given(values=st.lists(st.integers(0, 5), max_size=20), data=st.data())
def test_arrays_of_numpy_are_taken_over(kind: str, values: list[int], data: st.DataObject) -> None:
    array = np.array(values, kind)
    there = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))), bool)
    assert _arrow.array(array).equals(pa.array(array))
    assert _arrow.array(array, there).equals(pa.array(array, mask=~there))
    assert _arrow.array(array[::2]).equals(pa.array(array[::2]))


@given(lists=LISTS, start=st.integers(0, 3), data=st.data())
def test_columns_are_cut_and_counted_as_by_their_methods(lists: Any, start: int, data: st.DataObject) -> None:
    column = pa.array(lists, pa.list_(pa.string())).slice(start)
    places = np.array(data.draw(st.lists(st.integers(0, max(0, len(column) - 1)), max_size=5)), np.int64)[: len(column)]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(column), max_size=len(column))), bool)
    assert _arrow.take(column, places).equals(column.take(pa.array(places)))
    assert _arrow.keep(column, mask).equals(column.filter(pa.array(mask)))
    assert _arrow.flatten(column).equals(column.flatten())
    assert _arrow.lengths(column).tolist() == column.value_lengths().fill_null(0).to_pylist()
    assert _arrow.is_null(column).tolist() == column.is_null().to_pylist()
    assert _arrow.call("equal", _arrow.flatten(column), pa.scalar("a")).to_pylist() == [
        None if text is None else text == "a" for text in column.flatten().to_pylist()
    ]
