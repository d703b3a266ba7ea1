"""Stats as Data-Juicer's default executor sees them: through a text form with ten decimals and an inexact reader.

Its executor keeps stats in a JSON column between computing and comparing. The writer rounds to ten decimals; the
reader adds the digits after the point, as a whole number, times a power of ten, so 0.3 comes back as
0.30000000000000004 and fails ``<= 0.3``. The operators alone do not do this, and neither do we, unless a recipe asks
for ``compat: dj-executor``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_DECIMALS = 10
_SCALE = 1e10
_LARGE, _SMALL = 1e16 - 1, 1e-15
_TENTHS = np.array([float(f"1e-{n}") for n in range(_DECIMALS + 1)])


def through_json(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Numbers after the way through text; NaN stays NaN, and infinities become NaN (a null in that text).

    >>> through_json(np.array([0.3, 0.25, 1e-12])).tolist()
    [0.30000000000000004, 0.25, 0.0]
    """
    size = np.abs(values)
    plain = np.isfinite(values) & (size <= _LARGE) & ((size == 0) | (size >= _SMALL))
    safe = np.where(plain, size, 0.0)
    whole = np.floor(safe)
    scaled = (safe - whole) * _SCALE
    digits = np.floor(scaled)
    rest = scaled - digits
    digits += (rest > 0.5) | ((rest == 0.5) & ((digits == 0) | (digits % 2 == 1)))
    over = digits >= _SCALE
    whole, digits = whole + over, np.where(over, 0.0, digits)
    places = np.full(len(values), _DECIMALS)
    for _ in range(_DECIMALS):  # trailing zeros are not written, so the reader multiplies by a larger tenth
        shorter = (digits % 10 == 0) & (places > 1)
        digits, places = np.where(shorter, digits / 10, digits), places - shorter
    read = np.copysign(whole + digits * _TENTHS[places], values)
    return np.where(plain, read, np.where(np.isfinite(values), values, np.nan))


def round_column(column: Any) -> Any:
    """A stat column (numbers, or lists of numbers) with every fraction rounded; other columns as they are."""
    if pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
        flat = _round(column.flatten())
        offsets = np.concatenate([[0], np.cumsum(column.value_lengths().fill_null(0).to_numpy())])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=column.is_null())
    return _round(column) if pa.types.is_floating(column.type) else column


def _round(column: Any) -> Any:
    values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    return pa.array(through_json(values), pa.float64(), mask=np.asarray(column.is_null()))
