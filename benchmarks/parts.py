"""What share of a run's CPU goes where: samples this process's stack while it runs a recipe.

    python -m benchmarks.parts RECIPE OUT        prints JSON: CPU seconds by part

Each sample stands for the CPU time since the one before, so that long calls into compiled code count in full.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

_EVERY_S = 0.002
# Looked for from the outside in; the first that matches names the part. "*" is any function of the file.
_PARTS = {
    ("engine/export.py", "add_rows"): "writing rows",
    ("engine/export.py", "finish"): "writing rows",
    ("engine/lines.py", "_scores"): "writing rows",
    ("engine/lines.py", "_lines"): "writing rows",
    ("engine/lines.py", "_beside"): "writing rows",
    ("engine/export.py", "export_quarantine"): "accounting",
    ("engine/local.py", "account"): "accounting",
    ("engine/export.py", "add_trace"): "trace",
    ("engine/trace.py", "*"): "trace",
    ("engine/shard.py", "_note"): "trace",
    ("engine/arrow_files.py", "*"): "cache",
    ("engine/shard.py", "_load"): "cache",
    ("engine/shard.py", "_read"): "reading rows",
    ("engine/source.py", "*"): "reading rows",
}


class Sampler:
    """Adds up CPU seconds by part between :meth:`start` and :meth:`stop`."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._last = 0.0

    def start(self) -> None:
        """Begin to sample."""
        self._last = time.process_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)

    def stop(self) -> None:
        """End."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        now = time.process_time()
        self.seconds[part_of(frame)] += now - self._last
        self._last = now


def part_of(frame: FrameType | None) -> str:
    """The part a stack belongs to."""
    stack = []
    while frame is not None:
        if frame.f_code.co_name != "<module>":  # importing belongs to starting, whoever does it first
            stack.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    fallback = "starting and planning"
    for path, name in reversed(stack):
        file = "/".join(Path(path).parts[-2:])
        found = _PARTS.get((file, name)) or _PARTS.get((file, "*"))
        if found:
            return found
        if "/bettersynth/ops/" in path:
            return "operators"
        if file == "engine/shard.py":
            fallback = "accounting"  # looking at what changed, counting, cutting batches
    return fallback


def main() -> int:
    """Run the recipe in this process and print the parts."""
    sampler = Sampler()
    sampler.start()
    from bettersynth.engine.local import process
    from bettersynth.engine.plan import read_recipe
    from bettersynth.formats.late_pandas import leave_pandas_out

    leave_pandas_out()  # as the command does
    process(read_recipe(Path(sys.argv[1])), out=Path(sys.argv[2]), workers=1)
    sampler.stop()
    print(json.dumps({part: round(seconds, 3) for part, seconds in sampler.seconds.most_common()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
