"""The few functions of Arrow that every run needs, called by name.

Arrays' own methods (``take``, ``filter``, ``flatten``, ``is_null`` ...) import ``pyarrow.compute``, which writes a
Python function for each of Arrow's three hundred: a tenth of the time that starting takes. ``pa.array`` of a numpy
array imports numpy's masked arrays to ask whether it is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

try:
    from pyarrow._compute import call_function
except ImportError:  # no public name: another version of Arrow may have moved it
    from pyarrow.compute import call_function


def call(name: str, *columns: Any) -> Any:
    """A function of Arrow with its usual options, e.g. ``equal``."""
    return call_function(name, list(columns))


def array(values: npt.NDArray[Any], there: npt.NDArray[np.bool_] | None = None) -> Any:
    """Numbers or truth values of numpy as an Arrow array; numbers stay where they are in memory.

    Args:
        there: which values are not missing; all by default.
    """
    kind = pa.from_numpy_dtype(values.dtype)
    memory = _bits(values) if values.dtype == np.bool_ else pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None if there is None else _bits(there), memory])


def _bits(values: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def take(data: Any, places: npt.NDArray[Any]) -> Any:
    """The rows of a column, batch or table at some places."""
    return call("take", data, array(places))


def keep(data: Any, mask: npt.NDArray[np.bool_]) -> Any:
    """The rows where the mask is True."""
    return call("filter", data, array(mask))


def is_null(column: Any) -> npt.NDArray[np.bool_]:
    """Which values are missing."""
    if not column.null_count:
        return np.zeros(len(column), bool)
    return np.asarray(call("is_null", column).to_numpy(zero_copy_only=False))


def lengths(column: Any) -> npt.NDArray[Any]:
    """How many entries each row of a list column has; a missing list has none."""
    found = call("list_value_length", column)
    return np.asarray(call("coalesce", found, pa.scalar(0, found.type)).to_numpy(zero_copy_only=False))


def flatten(column: Any) -> Any:
    """All entries of a list column, in order."""
    return call("list_flatten", column)
