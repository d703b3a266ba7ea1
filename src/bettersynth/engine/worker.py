"""A worker process: receives stages and shards over a socket, sends markers back, dies with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

from bettersynth.core.errors import BetterSynthError
from bettersynth.engine.jobs import Settings, StageJob
from bettersynth.engine.shard import run_shard
from bettersynth.formats.late_pandas import leave_pandas_out
from bettersynth.ops._context import OpContext

if TYPE_CHECKING:  # the parent reads this file, too
    from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Ask the kernel (Linux) for SIGKILL when the parent ends; elsewhere the closed socket ends the worker."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error as plain data; unexpected ones carry their traceback."""
    if isinstance(error, BetterSynthError):
        names = ("message", "where", "got", "expected", "hint", "exit_code")
        return {name: getattr(error, name) for name in names}
    text = "".join(traceback.format_exception(error))
    return {"message": f"{type(error).__name__}: {error}", "got": text[-3000:], "exit_code": 1}


def serve(connection: Connection) -> None:
    """Answer requests until the other side closes the connection."""
    stage: StageJob | None = None
    contexts: dict[str, tuple[Settings, OpContext]] = {}
    while True:
        try:
            kind, payload = connection.recv()
        except (EOFError, OSError):
            return
        if kind == "stage":
            stage = payload
            leave_pandas_out()  # a user's own operators have been imported now, with what they need
            continue
        assert stage is not None  # the pool sends a stage before its shards
        try:
            # One context for all stages of a run, so that models stay loaded.
            settings, ctx = contexts.get("", (None, None))
            if ctx is None or settings != stage.settings:
                ctx = stage.settings.context()
                contexts[""] = (stage.settings, ctx)
            connection.send(("done", run_shard(stage, payload, ctx)))
        except Exception as error:  # noqa: BLE001 - every failure is reported to the parent, which decides
            connection.send(("error", describe_error(error)))


def main() -> None:
    """Entry point: the socket's file descriptor is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    from multiprocessing.connection import Connection

    with contextlib.suppress(BrokenPipeError, ConnectionResetError), Connection(int(sys.argv[1])) as connection:
        serve(connection)
    os._exit(0)  # model libraries may hold threads that delay a normal exit


if __name__ == "__main__":
    main()
