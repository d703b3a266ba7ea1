"""Run conditions x seeds, each trial in its own folder, finished ones skipped, several at a time.

What one trial does is handed in (:data:`RunTrial`): process the data, train, ask, score. This file only knows that a
trial ends in scores per question.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.budget import Budget
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError, RunInterrupted
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.core.record import EvalResult, StageCost
from bettersynth.eval.score import load_question_scores, load_results, parse_result

TRIAL = "trial.json"
FAILED = "failed.txt"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Trial:
    """One training to be run: a condition and a seed.

    ``fingerprint`` covers everything the result depends on (recipe, seed data, preset, bases, questions); a finished
    folder with another fingerprint is run again.
    """

    condition: str
    seed: int
    folder: Path
    fingerprint: str = ""


@dataclass(frozen=True)
class TrialResult:
    """What a trial found.

    Args:
        scores: scoring protocol -> question id -> score in 0-1.
        results: one EvalResult per protocol, with provenance.
        budgets: stage name -> what its training spent.
        costs: seconds per stage.
        cpu_s, wall_s: of the whole trial, measured around it.
        facts: anything worth keeping: rows, digests.
    """

    scores: Mapping[str, Mapping[str, float]]
    results: tuple[EvalResult, ...] = ()
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    costs: tuple[StageCost, ...] = ()
    cpu_s: float = 0.0
    wall_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


RunTrial = Callable[[str, int, Path], TrialResult]
"""(condition name, seed, folder) -> result. Resumable in its folder; importable by name when trials run in parallel."""

Progress = Callable[[int, int, str], None]
"""Called with (finished, total, condition and seed of the last)."""


def gather(scores_folders: Sequence[Path], **rest: Any) -> TrialResult:
    """A TrialResult from scores folders; their provenance is checked. ``rest``: the other fields."""
    scores: dict[str, Mapping[str, float]] = {}
    results: list[EvalResult] = []
    for folder in scores_folders:
        results += load_results(folder)
        scores |= load_question_scores(folder)
    return TrialResult(scores, tuple(results), **rest)


# ---------------------------------------------------------------- on disk


def save_trial(trial: Trial, result: TrialResult) -> None:
    """Write ``trial.json``; its presence means the trial is finished."""
    identity = {"condition": trial.condition, "seed": trial.seed, "fingerprint": trial.fingerprint}
    document = json.dumps(identity | asdict(result), ensure_ascii=False, indent=1)
    write_atomic(trial.folder / TRIAL, document.encode())


def load_trial(trial: Trial) -> TrialResult | None:
    """The result of a finished trial, or None when it is not finished or was made from other inputs.

    Raises:
        DataError: a damaged file.
    """
    path = trial.folder / TRIAL
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        identity = (raw.pop("condition"), raw.pop("seed"), raw.pop("fingerprint"))
        raw["results"] = tuple(parse_result(result) for result in raw["results"])
        raw["budgets"] = {stage: Budget(**budget) for stage, budget in raw["budgets"].items()}
        raw["costs"] = tuple(StageCost(**cost) for cost in raw["costs"])
        result = TrialResult(**raw)
    except (ValueError, KeyError, TypeError) as error:
        hint = t("delete the file; the trial then runs again from its finished stages")
        raise DataError(t("damaged trial file"), where=str(path), got=str(error), hint=hint) from error
    return result if identity == (trial.condition, trial.seed, trial.fingerprint) else None


def read_trial(condition: str, seed: int, folder: Path) -> TrialResult:
    """The finished trial of a folder, whatever it was made from; for looking at it, not for deciding what to run.

    Raises:
        DataError: not finished, damaged, or the trial of another condition or seed.
    """
    path = folder / TRIAL
    try:
        fingerprint = str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(t("no finished trial here"), where=str(path), got=str(error)) from error
    result = load_trial(Trial(condition, seed, folder, fingerprint))
    if result is None:
        raise DataError(
            t("the trial of another condition or seed"),
            where=str(path),
            expected=f"{condition} {seed}",
            hint=t("run the experiment again; finished parts are not done twice"),
        )
    return result


# ---------------------------------------------------------------- running


def run_trials(
    trials: Sequence[Trial], run_trial: RunTrial, *, workers: int = 1, progress: Progress | None = None
) -> dict[str, dict[int, TrialResult]]:
    """Run what is not finished and return all results, by condition and seed.

    A trial that fails does not stop the others; the error at the end names all that failed. Calling again runs only
    what is missing.

    Args:
        workers: trials at a time, each a process with one thread.

    Raises:
        BetterSynthError: trials failed.
        RunInterrupted: interrupted; nothing finished is lost.
    """
    total = len(trials)
    done = {(trial.condition, trial.seed): load_trial(trial) for trial in trials}
    pending = [trial for trial in trials if done[trial.condition, trial.seed] is None]
    finished = total - len(pending)
    if progress is not None:
        progress(finished, total, "")
    failures: dict[str, str] = {}
    run = _in_processes if workers > 1 and len(pending) > 1 else _in_turn
    try:
        for trial, failure in run(pending, run_trial, workers):
            name = f"{trial.condition} seed {trial.seed}"
            if failure:
                failures[name] = failure
            finished += not failure
            if progress is not None:
                progress(finished, total, name)
    except (KeyboardInterrupt, RunInterrupted) as error:
        raise RunInterrupted(
            t("interrupted with {n} of {total} trials finished", n=finished, total=total),
            hint=t("run the same command again to continue"),
        ) from error
    if failures:
        first = next(iter(failures))
        raise BetterSynthError(
            t("{n} of {total} trials failed", n=len(failures), total=total),
            where=", ".join(failures),
            got=f"{first}: {failures[first]}",
            hint=t("each trial folder has a {name}; run the same command again to retry what failed", name=FAILED),
        )
    results: dict[str, dict[int, TrialResult]] = {}
    for trial in trials:
        result = load_trial(trial)
        if result is not None:
            results.setdefault(trial.condition, {})[trial.seed] = result
    return results


def _run_one(run_trial: RunTrial, trial: Trial) -> str:
    """Run and save one trial; returns an empty string, or what went wrong in one line.

    Raises:
        RunInterrupted: the user wants an end, not the next trial.
    """
    try:
        with Meter(trial.condition) as meter:
            result = run_trial(trial.condition, trial.seed, trial.folder)
        # A continued trial has spent more than this process saw; its stages remember their share.
        cpu_s = max(meter.cost.cpu_s, round(sum(cost.cpu_s for cost in result.costs), 3))
        wall_s = max(meter.cost.wall_s, round(sum(cost.wall_s for cost in result.costs), 3))
        save_trial(trial, replace(result, cpu_s=cpu_s, wall_s=wall_s))
    except RunInterrupted:
        raise
    except Exception as error:  # noqa: BLE001 - one failing trial must not take the others with it; it is reported
        text = error.render() if isinstance(error, BetterSynthError) else traceback.format_exc()
        write_atomic(trial.folder / FAILED, text.encode())
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    (trial.folder / FAILED).unlink(missing_ok=True)
    return ""


def _run_in_worker(run_trial: RunTrial, trial: Trial) -> str:
    """:func:`_run_one` in a process of its own, which ends where the trial was interrupted and starts no other."""
    try:
        return _run_one(run_trial, trial)
    except RunInterrupted as error:
        os._exit(error.exit_code)


def _in_turn(trials: Sequence[Trial], run_trial: RunTrial, _workers: int) -> Iterator[tuple[Trial, str]]:
    for trial in trials:
        yield trial, _run_one(run_trial, trial)


def _in_processes(trials: Sequence[Trial], run_trial: RunTrial, workers: int) -> Iterator[tuple[Trial, str]]:
    """Fresh processes (no fork: the parent may hold threads and models), one thread each, that end with the parent."""
    try:
        pickle.dumps(run_trial)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            t("this trial function cannot be sent to another process"),
            got=str(error),
            expected=t("a function at the top level of a module"),
            hint=t("run with one worker"),
        ) from error
    context = multiprocessing.get_context("spawn")
    with _one_thread_each():
        pool = ProcessPoolExecutor(min(workers, len(trials)), context, _end_with_parent)
        before = set(multiprocessing.active_children())
        try:
            futures = {pool.submit(_run_in_worker, run_trial, trial): trial for trial in trials}
            for future in as_completed(futures):
                yield futures[future], _outcome(future.result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        pool.shutdown()


def _outcome(result: Callable[[], str]) -> str:
    try:
        return result()
    except BrokenProcessPool:
        return t("its process died; perhaps it ran out of memory: use fewer workers")


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside get one thread for numeric libraries; N processes with N threads each would thrash."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """Start a thread that ends this process when its parent is gone, so that a killed run leaves nothing behind."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
