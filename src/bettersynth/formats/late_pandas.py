"""Keep Arrow from importing pandas in our own processes, where nothing needs it.

Arrow looks for pandas when it makes its first array from Python values, to recognise pandas' own values among them:
once from Python, once from C++. Where pandas is installed, importing it takes longer than all the rest of a small run
and 40 MB in every process; where it is not, the search in C++ is repeated for every array.
"""

from __future__ import annotations

import sys
from types import ModuleType

import pyarrow as pa

_NAME = "pandas"


class _NotFound:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == _NAME:
            raise ImportError(name)


def leave_pandas_out() -> None:
    """Answer Arrow's first looks for pandas, unless it is loaded already; for programs, as it is for good.

    ``to_pandas`` works as before, as it looks again. What no longer works is ``pa.array`` of pandas' missing values
    in a process that imports pandas later.
    """
    if _NAME in sys.modules:
        return
    finder = _NotFound()
    sys.meta_path.insert(0, finder)
    try:
        _ = pa.lib._pandas_api.have_pandas
    finally:
        sys.meta_path.remove(finder)
    sys.modules[_NAME] = ModuleType(_NAME)  # without anything that C++ could recognise values by
    try:
        pa.array([0])
    finally:
        del sys.modules[_NAME]
