"""Start a training's processes on this machine, one per device; when one fails all end, with one message.

What torchrun does, without its traces: the processes find each other by the same environment variables. Imports no
torch unless there are several devices.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError, PeerLost
from bettersynth.core.lang import t

LAUNCHED = "BETTERSYNTH_LAUNCHED"
"""Set in processes started here: losing a neighbour is then not worth a message, as the starter says why."""
PROGRAM = (sys.executable, "-m", "bettersynth")
_GRACE_S = 5.0
"""Time given to the other processes, first to end by themselves, then to obey."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def count_devices() -> int:
    """CUDA devices this process may use; 1 where there are none."""
    if len(list(Path("/dev").glob("nvidia[0-9]*"))) < 2 and not Path("/dev/kfd").exists():
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def choose_processes(asked: int | None, configs: Sequence[StageConfig]) -> int:
    """How many processes to start; 1 means that this one trains by itself.

    Args:
        asked: by the user; otherwise as many as there are devices, or the most of them that a step can be dealt to.
        configs: the stages that will be trained.

    Raises:
        ConfigError, ConfigErrors: there are several devices and no number of them fits the global batches.
    """
    if "WORLD_SIZE" in os.environ:
        return 1  # started by torchrun or by us
    if asked is not None:
        return asked
    if any(config.device not in ("auto", "cuda") for config in configs):
        return 1
    found = count_devices()
    if found == 1:
        return 1
    fitting = [n for n in range(found, 0, -1) if not _misfits(configs, n)]
    if not fitting:
        raise_all(_misfits(configs, found), where="per_device_batch_size")
    return fitting[0]


def _misfits(configs: Sequence[StageConfig], processes: int) -> list[BetterSynthError]:
    found: list[BetterSynthError] = []
    for config in configs:
        try:
            config.with_devices(processes)
        except ConfigError as error:
            found.append(error)
    return found


@dataclass(frozen=True)
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    said: IO[bytes] | None

    def last_words(self) -> str:
        """What it wrote to its standard error from its last message on."""
        if self.said is None:
            return ""
        self.said.seek(0)
        text = self.said.read().decode(errors="replace").strip()
        at = max(text.rfind("error: "), 0)
        return text[text.rfind("\n", 0, at) + 1 :]


def launch(words: Sequence[str], count: int) -> int:
    """Run ``bettersynth WORDS`` in several processes at once and wait; returns the exit code.

    Process 0 speaks; the others are heard only when they fail. Ctrl-C and SIGTERM are passed on: every process saves
    and ends. No process outlives this one, whatever ends it.

    Raises:
        BetterSynthError: a process was killed.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bettersynth-") as folder:
        ranks = [_start(words, number, count, port, Path(folder)) for number in range(count)]
        with _passed_on(ranks):
            try:
                first = _wait(ranks)
            finally:
                _end(ranks)
        return _verdict(ranks, first)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _start(words: Sequence[str], number: int, count: int, port: str, folder: Path) -> _Rank:
    environment = {
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        LAUNCHED: "1",
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    said = (folder / f"{number}.txt").open("w+b") if number else None
    process = subprocess.Popen(
        [*PROGRAM, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if number == 0 else subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,  # signals come from us alone, once
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    return _Rank(number, process, said)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _passed_on(ranks: Sequence[_Rank]) -> Iterator[None]:
    """Give Ctrl-C and SIGTERM to the processes; they decide what they mean."""

    def send(number: int, frame: Any) -> None:
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(number)

    before = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: Sequence[_Rank]) -> _Rank | None:
    """Until all have ended, or one has failed and the others have had time to; returns the first that failed."""
    while True:
        codes = [rank.process.poll() for rank in ranks]
        failed = [rank for rank, code in zip(ranks, codes, strict=True) if code]
        if failed:
            until = time.monotonic() + _GRACE_S
            while time.monotonic() < until and any(rank.process.poll() is None for rank in ranks):
                time.sleep(0.05)
            return failed[0]
        if None not in codes:
            return None
        time.sleep(0.05)


def _end(ranks: Sequence[_Rank]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(number)
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until and any(rank.process.poll() is None for rank in ranks):
            time.sleep(0.05)


def _verdict(ranks: Sequence[_Rank], first: _Rank | None) -> int:
    if first is None:
        return 0
    own = ranks[0].process.returncode
    if own > 0 and own != PeerLost.exit_code:
        return own  # it has said why
    guilty = [rank for rank in ranks if rank.process.returncode not in (0, PeerLost.exit_code)]
    # Whoever still ran after the first had failed was ended by us.
    rank = first if first in guilty or not guilty else guilty[0]
    code = rank.process.returncode
    whose = {"number": rank.number + 1, "count": len(ranks)}
    if code >= 0:
        print(rank.last_words(), file=sys.stderr)
        print(t("said by process {number} of {count}; all have been ended", **whose), file=sys.stderr)
        return code
    name = signal.Signals(-code).name
    got = t("signal {name}", name=name)
    if -code == signal.SIGKILL:
        got = t("signal {name}; most often the machine's memory was used up", name=name)
    raise BetterSynthError(
        t("process {number} of {count} was killed, so all have been ended", **whose),
        got=got,
        hint=t("run the same command again; it continues from the last state"),
    )
