"""Arrow's look for pandas is answered without it, and pandas still works where it is asked for."""

import importlib.util
import subprocess
import sys

import pytest

_SCRIPT = """
import sys
from bettersynth.formats.late_pandas import leave_pandas_out

leave_pandas_out()
import pyarrow as pa

pa.array([1, None]), pa.array(["a"]), pa.array([[{"a": 1}]])
assert "pandas" not in sys.modules
frame = pa.table({"a": [1, None]}).to_pandas()
assert frame.shape == (2, 1) and frame["a"].isna().tolist() == [False, True]
assert pa.Table.from_pandas(frame).to_pydict() == {"a": [1.0, None]}
"""


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_arrays_do_not_import_pandas_and_frames_do() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
