"""Run a command and say what it cost: CPU seconds of its whole process tree, wall seconds, peak memory (PSS)."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SAMPLE_S = 0.4


@dataclass(frozen=True)
class Cost:
    """What a command took. ``pss_bytes`` is the largest sum over the process tree, shared pages counted once."""

    exit_code: int
    wall_s: float
    cpu_s: float
    pss_bytes: int
    load: float


def run(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a command to its end; its output goes to ``log``.

    CPU seconds are those of all descendants: this process takes over and waits for children that outlive their parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    before, load, started = _children_cpu(), os.getloadavg()[0], time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as handle:
        child = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        watch = _Memory(child.pid)
        code = child.wait()
        wall = time.perf_counter() - started
        watch.stop()
    _reap()
    return Cost(code, round(wall, 3), round(_children_cpu() - before, 3), watch.peak, round(load, 2))


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap() -> None:
    """Wait for orphans (at most five seconds), so that their time is counted."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        except ChildProcessError:
            return


class _Memory(threading.Thread):
    """Samples the proportional set size of a process tree."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak = root, 0
        self._end = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._end.wait(_SAMPLE_S):
            self.peak = max(self.peak, sum(map(_pss, _tree(self.root))))

    def stop(self) -> None:
        self._end.set()
        self.join()


def _tree(root: int) -> list[int]:
    found, at = [root], 0
    while at < len(found):
        try:
            tasks = list(Path(f"/proc/{found[at]}/task").iterdir())
            for task in tasks:
                found += [int(pid) for pid in (task / "children").read_text().split()]
        except OSError:
            pass
        at += 1
    return found


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def machine() -> dict[str, object]:
    """The class of this machine: figures of different machines are not to be compared."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else ""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": model or platform.processor(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
    }
