"""One finished quick demo, shared by the end-to-end tests of a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _program(*words: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, one thread, in English."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BETTERSYNTH_LANG": "en"}
    done = subprocess.run(
        [sys.executable, "-m", "bettersynth", *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def program() -> Run:
    """Runs the command line: words, ``cwd=``, and ``check=False`` to look at a failure."""
    return _program


@pytest.fixture(scope="session")
def quick_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which ``bettersynth demo --quick`` was run (its workspace is ``demo_out`` in it)."""
    folder = tmp_path_factory.mktemp("quick")
    _program("demo", "--quick", cwd=folder)
    return folder
