"""The same shards as Ray actors: the plan, the shard function and the bytes are those of the embedded executor.

Ray owns placement and the loss of workers and nodes; shards, markers and commits stay ours. The result folder must be
reachable under the same path from every node (a shared file system, or one machine).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bettersynth.core.errors import BetterSynthError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.engine.jobs import ShardJob, StageJob
from bettersynth.engine.pool import Done
from bettersynth.engine.worker import describe_error

_MAX_DEATHS = 12


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("running on Ray"), "ray", missing="ray") from error
    return ray


class _Actor:
    """Works on one shard at a time in a process of Ray's; models stay loaded between shards."""

    def __init__(self) -> None:
        self._context: Any = None
        self._settings: Any = None

    def ready(self) -> tuple[str, Any]:
        """Answers as soon as the actor has found a place."""
        return "ready", None

    def run(self, stage: StageJob, shard: ShardJob) -> tuple[str, Any]:
        """``("done", marker)`` or ``("error", what)``, as a worker of the embedded executor answers."""
        from bettersynth.engine.shard import run_shard

        try:
            if self._context is None or self._settings != stage.settings:
                self._context, self._settings = stage.settings.context(), stage.settings
            return "done", run_shard(stage, shard, self._context)
        except Exception as error:  # noqa: BLE001 - every failure is reported to the driver, which decides
            return "error", describe_error(error)


class RayPool:
    """Stands in for :class:`bettersynth.engine.pool.Pool`.

    Args:
        workers: actors; each asks for one CPU, and stages with models for a GPU where the cluster has any.
        address: ``local`` starts Ray on this machine and ends it with the run; ``auto`` or an address joins a cluster.
    """

    def __init__(self, workers: int, address: str = "local") -> None:
        self.size, self._address = workers, address
        self._actors: dict[bool, list[Any]] = {}
        self._owned = False
        self.deaths = 0

    def __enter__(self) -> RayPool:
        ray = _ray()
        if not ray.is_initialized():
            # Workers must find this package and the operators of custom_operator_paths where we found them.
            paths = os.pathsep.join(path for path in sys.path if path)
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            options: dict[str, Any] = {
                "runtime_env": {"env_vars": {"PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false", **one_thread}},
                "log_to_driver": False,
                "logging_level": "ERROR",
            }
            if self._address == "local":
                options |= {"address": "local", "num_cpus": self.size, "include_dashboard": False}
            else:
                options["address"] = self._address
            try:
                ray.init(**options)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                raise BetterSynthError(
                    t("cannot reach the Ray cluster"),
                    got=str(error).splitlines()[0],
                    expected=t("ray_address: local, auto or HOST:PORT"),
                ) from error
            self._owned = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            _ray().shutdown()
        self._actors.clear()

    def _start(self, gpu: bool, *, is_extra: bool = False) -> Any:
        """A new actor. An extra one asks for no CPU of its own: the others may hold them all."""
        options = {"num_cpus": 0 if is_extra else 1, "num_gpus": 1 if gpu and not is_extra else 0, "max_restarts": 0}
        return _ray().remote(_Actor).options(**options).remote()

    def run(self, stage: StageJob, shards: list[ShardJob], *, at_most: int | None = None) -> Iterator[Done]:
        """Run a stage's shards, yielding each as it finishes, in any order.

        Raises:
            BetterSynthError: a shard failed as a whole, or workers keep dying.
        """
        if not shards:
            return
        ray = _ray()
        gpu = stage.where == "cuda" and ray.cluster_resources().get("GPU", 0) >= 1
        most = int(ray.cluster_resources()["GPU"]) if gpu else at_most or self.size
        actors = self._actors.setdefault(gpu, [])
        while len(actors) < max(1, min(self.size, most, len(shards))):
            actors.append(self._start(gpu))
        stage_ref, queue = ray.put(stage), deque(shards)
        attempts: dict[int, int] = {}
        # An actor gets work once it is there: after the loss of a node its replacement may have to wait for a place,
        # and the others take the work meanwhile.
        waiting: dict[Any, tuple[int, ShardJob | None]] = {
            actor.ready.remote(): (place, None) for place, actor in enumerate(actors)
        }
        working, idle = 0, list[int]()
        while queue or working:
            while queue and idle:  # work of an actor that was lost, for those that had nothing left to do
                job, free = queue.popleft(), idle.pop()
                waiting[actors[free].run.remote(stage_ref, job)] = (free, job)
                working += 1
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            place, shard = waiting.pop(ready)
            working -= shard is not None
            try:
                kind, payload = ray.get(ready)
            except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
                self._count_death(error)
                actors[place] = self._start(gpu)
                waiting[actors[place].ready.remote()] = (place, None)
                if shard is not None:
                    attempts[shard.number] = attempts.get(shard.number, 0) + 1
                    again = attempts[shard.number] > 2
                    queue.appendleft(self._without_killer(stage_ref, shard, gpu) if again else shard)
                continue
            if kind == "error":
                exit_code = payload.pop("exit_code")
                failure = BetterSynthError(**payload)
                failure.exit_code = exit_code
                raise failure
            if shard is not None:
                yield Done(shard, payload)
            idle.append(place)

    def _count_death(self, error: Exception) -> None:
        self.deaths += 1
        if self.deaths > _MAX_DEATHS:
            raise BetterSynthError(
                t("worker processes keep dying"),
                got=str(error).splitlines()[0][:200],
                hint=t("out of memory is the usual cause; try fewer workers (np: 1)"),
            ) from error

    def _without_killer(self, stage_ref: Any, shard: ShardJob, gpu: bool) -> ShardJob:
        """The shard with the row that kills workers set aside; found by halving in actors that are thrown away."""
        keys = self._probe(stage_ref, shard, 0, 0, gpu)
        if not keys or self._probe(stage_ref, shard, 0, len(keys), gpu) is not None:
            return shard  # it does not happen again
        low, high = 0, len(keys)  # rows[:low] are harmless, rows[:high] kill
        while high - low > 1:
            middle = (low + high) // 2
            if self._probe(stage_ref, shard, low, middle, gpu) is None:
                high = middle
            else:
                low = middle
        return replace(shard, poisoned=shard.poisoned | {keys[low]})

    def _probe(self, stage_ref: Any, shard: ShardJob, start: int, stop: int, gpu: bool) -> list[str] | None:
        ray, actor = _ray(), self._start(gpu, is_extra=True)
        try:
            kind, payload = ray.get(actor.run.remote(stage_ref, replace(shard, probe=(start, stop))))
            return list(payload["keys"]) if kind == "done" else []
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
            return None
        finally:
            ray.kill(actor)
