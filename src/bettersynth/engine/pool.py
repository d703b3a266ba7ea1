"""Runs shards in worker processes, or in this one, and deals with workers that die."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bettersynth.core.errors import BetterSynthError
from bettersynth.core.lang import t
from bettersynth.engine.jobs import ShardJob, StageJob
from bettersynth.engine.shard import run_shard
from bettersynth.ops._context import OpContext

_MAX_DEATHS = 12
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")


@dataclass(frozen=True)
class Done:
    """A finished shard and its marker."""

    shard: ShardJob
    marker: dict[str, Any]


class Worker:
    """One child process and the socket to it."""

    def __init__(self) -> None:
        from multiprocessing.connection import Connection  # takes long to import, and one process needs none

        ours, theirs = socket.socketpair()
        env = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "TOKENIZERS_PARALLELISM": "false"}
        env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "bettersynth.engine.worker", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL)
        theirs.close()
        self.connection = Connection(ours.detach())
        self.job: ShardJob | None = None
        self.stage: StageJob | None = None

    def give(self, stage: StageJob, shard: ShardJob) -> None:
        """Send a shard, and its stage before it when the worker does not know it yet."""
        self.job = shard
        try:
            if self.stage is not stage:
                self.connection.send(("stage", stage))
                self.stage = stage
            self.connection.send(("shard", shard))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died before it got the work; the closed socket is noticed when its answer is read

    def take(self) -> dict[str, Any]:
        """The marker of the shard in work.

        Raises:
            EOFError: the worker died. BetterSynthError: it failed and says why.
        """
        try:
            kind, payload = self.connection.recv()
        except (ConnectionResetError, OSError) as error:
            raise EOFError from error
        if kind == "error":
            exit_code = payload.pop("exit_code")
            failure = BetterSynthError(**payload)
            failure.exit_code = exit_code
            raise failure
        self.job = None
        return dict(payload)

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class Pool:
    """A set of workers that lives as long as a run. With one worker everything happens in this process."""

    def __init__(self, workers: int) -> None:
        self.size = workers
        self._workers: list[Worker] = []
        self._context: OpContext | None = None
        self.deaths = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def run(self, stage: StageJob, shards: list[ShardJob], *, at_most: int | None = None) -> Iterator[Done]:
        """Run a stage's shards, yielding each as it finishes, in any order.

        Raises:
            BetterSynthError: a shard failed as a whole, or workers keep dying.
        """
        size = min(self.size, at_most or self.size, len(shards))
        if size <= 1 and not self._workers:
            self._context = self._context or stage.settings.context()
            for shard in shards:
                yield Done(shard, run_shard(stage, shard, self._context))
            return
        while len(self._workers) < size:
            self._workers.append(Worker())
        yield from self._distribute(stage, deque(shards), self._workers[: max(1, size)])

    def _distribute(self, stage: StageJob, queue: deque[ShardJob], workers: list[Worker]) -> Iterator[Done]:
        from multiprocessing.connection import wait

        attempts: dict[int, int] = {}
        busy: dict[Any, Worker] = {}
        for worker in workers:
            if queue:
                worker.give(stage, queue.popleft())
                busy[worker.connection] = worker
        while busy:
            finished = []  # handed on only when the workers have work again, as whoever takes it may need time for it
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                shard = worker.job
                assert shard is not None  # busy workers have a job
                try:
                    finished.append(Done(shard, worker.take()))
                except EOFError:
                    worker = self._replace(worker)
                    attempts[shard.number] = attempts.get(shard.number, 0) + 1
                    queue.appendleft(shard if attempts[shard.number] == 1 else self._without_killer(stage, shard))
                if queue:
                    worker.give(stage, queue.popleft())
                    busy[worker.connection] = worker
            yield from finished

    def _replace(self, dead: Worker) -> Worker:
        self.deaths += 1
        code = dead.process.wait()
        dead.close()
        if self.deaths > _MAX_DEATHS:
            raise BetterSynthError(
                t("worker processes keep dying"),
                got=t("{n} deaths, last exit status {code}", n=self.deaths, code=code),
                hint=t("out of memory is the usual cause; try fewer workers (np: 1)"),
            )
        fresh = Worker()
        self._workers[self._workers.index(dead)] = fresh
        return fresh

    def _without_killer(self, stage: StageJob, shard: ShardJob) -> ShardJob:
        """The shard with the row that kills workers set aside; found by halving in workers that are thrown away."""
        prober = _Prober(stage, shard)
        try:
            keys = prober.keys(0, 0)
            if not keys or prober.keys(0, len(keys)) is not None:
                return shard  # it does not happen again
            low, high = 0, len(keys)  # rows[:low] are harmless, rows[:high] kill
            while high - low > 1:
                middle = (low + high) // 2
                if prober.keys(low, middle) is None:
                    high = middle
                else:
                    low = middle
            return replace(shard, poisoned=shard.poisoned | {keys[low]})
        finally:
            prober.close()


class _Prober:
    """Runs parts of a shard without committing, in a worker that is replaced when it dies."""

    def __init__(self, stage: StageJob, shard: ShardJob) -> None:
        self.stage, self.shard = stage, shard
        self.worker: Worker | None = None

    def keys(self, start: int, stop: int) -> list[str] | None:
        """The keys of all the shard's rows after working on ``start:stop``, or None when the worker died."""
        self.worker = self.worker or Worker()
        try:
            self.worker.give(self.stage, replace(self.shard, probe=(start, stop)))
            return list(self.worker.take()["keys"])
        except EOFError:
            self.close()
            return None

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None
