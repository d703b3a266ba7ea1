"""Compiled inner loops, where the machine has a C compiler; everything works, with the same results, without.

The source beside this file is compiled once per machine and version into the user's cache folder.
``BETTERSYNTH_NATIVE=0`` switches it off.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

SWITCH = "BETTERSYNTH_NATIVE"
_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = (
    ("-O3", "-march=native", "-mprefer-vector-width=512"),
    ("-O3", "-march=native"),
    ("-O3",),
)
_ALWAYS = ("-std=c11", "-ffp-contract=off", "-shared", "-fPIC")
_LIMIT_S = 60
_WORTH_ROWS = 256
"""Batches of fewer rows do not start the compiler; they use what is compiled already."""


def library(rows: int) -> Any | None:
    """The compiled functions, or None: switched off, no compiler, it failed, or the rows are too few to begin.

    Callers compare what they say with Python once before they trust them.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return None
    try:
        path = _path()
        if rows < _WORTH_ROWS and not path.is_file():
            return None
        return _load(str(path))
    except OSError:
        return None


@lru_cache(maxsize=1)
def _path() -> Path:
    """Where this source, compiled for this processor, is kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    facts = [_SOURCE.read_bytes(), repr((_FLAGS, _ALWAYS)).encode(), platform.machine().encode(), _processor()]
    return root / "bettersynth" / "native" / f"{hashlib.sha256(b'|'.join(facts)).hexdigest()}.so"


def _processor() -> bytes:
    """What the processor can do, as code compiled for one may not run on another that shares the home folder."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as handle:
        return next((line for line in handle if line.startswith((b"flags", b"Features"))), b"")
    return platform.processor().encode()


@lru_cache(maxsize=4)
def _load(path: str) -> Any | None:
    target = Path(path)
    if not target.is_file() and not _compile(target):
        return None
    if target.stat().st_uid != os.getuid():  # nobody else's code
        return None
    return ctypes.CDLL(path)


def _compile(target: Path) -> bool:
    """Compile into ``target``; of several processes that want to, one does and the others wait."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        return False
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temp = target.with_suffix(f".{os.getpid()}")
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            for flags in () if target.is_file() else _FLAGS:
                command = [compiler, *flags, *_ALWAYS, "-o", str(temp), str(_SOURCE), "-lm"]
                with contextlib.suppress(subprocess.SubprocessError):
                    subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
                    temp.replace(target)
                    break
        finally:
            temp.unlink(missing_ok=True)
    return target.is_file()


def address(buffer: Any) -> ctypes.c_void_p:
    """Where an Arrow buffer or a numpy array lies, as an argument."""
    return ctypes.c_void_p(buffer.ctypes.data if hasattr(buffer, "ctypes") else buffer.address)
