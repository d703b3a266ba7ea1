"""The embedded executor: a recipe over frozen shards, resumable at any point by running it again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import MANIFEST, Artifact, write_atomic, write_manifest
from bettersynth.core.errors import BetterSynthError, DataError, RunInterrupted
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.core.meter import cpu_seconds
from bettersynth.core.record import Accounting
from bettersynth.engine import export, trace
from bettersynth.engine.arrow_files import load_arrow, unwritable
from bettersynth.engine.export import ExportSettings, ResultWriter
from bettersynth.engine.jobs import FIELD, PARTIAL, Settings, ShardJob, StageJob, StepCount
from bettersynth.engine.keys import phase_key
from bettersynth.engine.passport import describe_steps, step_labels
from bettersynth.engine.plan import Plan, Stage, plan, unwrap
from bettersynth.engine.pool import Pool
from bettersynth.engine.progress import Progress, StageMeter, totals_of
from bettersynth.engine.remedy import remedy
from bettersynth.engine.samples import export_samples
from bettersynth.engine.settings import (
    base_key,
    device_of,
    read_options,
    settings_of,
    shared_folder,
    stage_folders,
    tokens_of,
)
from bettersynth.engine.source import Source, describe, freeze
from bettersynth.formats.remote import is_url, send
from bettersynth.ops.base import ID, STATS, GlobalOperator, Verdict

if TYPE_CHECKING:
    from bettersynth.engine.ray import RayPool

WORK = ".work"
_EARLIER_TRACE = "trace.parquet"  # what versions before trace.arrows wrote
_ROWS_AT_ONCE, _MODEL_ROWS_AT_ONCE = 4096, 256
_PICTURES_AT_ONCE = 64  # decoded pictures stay in memory, some megabytes each, until the last operator has seen them


def rows_at_once(stage: Stage) -> int:
    """How many rows of a shard a worker puts through a stage's operators together."""
    return _MODEL_ROWS_AT_ONCE if stage.models else _PICTURES_AT_ONCE if stage.pixels else _ROWS_AT_ONCE


@dataclass
class _Shard:
    """A shard between two stages."""

    key: str
    rows: int = 0
    path: Path = Path()
    digest: str = ""


@dataclass
class _State:
    """What a run has gathered so far."""

    shards: list[_Shard]
    markers: list[dict[str, Any]] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    scores: set[str] = field(default_factory=set)
    verdict: Path | None = None
    verdict_key: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    cached: int = 0
    computed: int = 0


@dataclass(frozen=True)
class _Outcome:
    """What a run has written: ``files`` and the ``rows`` in them. ``started``: wall and CPU seconds at its start."""

    run_key: str
    workers: int
    files: list[str]
    rows: int
    started: tuple[float, float]


def process(
    recipe: Recipe,
    *,
    out: Path,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    scores_only: bool = False,
    retry: bool = False,
) -> Artifact:
    """Run a recipe and write its result folder; finished parts of an earlier, interrupted run are not done again.

    The folder holds ``processed_data.jsonl`` (or the name in ``export_path``), its ``_stats`` file,
    ``quarantine.jsonl``, ``trace.arrows`` and the manifest. The same recipe, input and models give the same bytes
    for any number of workers and interruptions.

    Args:
        out: result folder.
        workers: processes; the recipe's ``np``, else all cores.
        progress: called after each shard.
        scores_only: compute every filter's stats and drop nothing.
        retry: work again on the parts in which rows were set aside.

    Raises:
        ConfigError, RuleError: the recipe is wrong or breaks its track's rules.
        DataError: unreadable or changing input, too many failed rows, unwritable output, or the folder is in use.
        RunInterrupted: Ctrl-C; running it again continues.
    """
    started, cpu = time.perf_counter(), cpu_seconds()
    planned = plan(recipe, scores_only=scores_only)
    work = out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        (work / "stages").mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(
            t("cannot write to the output folder"),
            where=str(out),
            got=error.strerror,
            hint=t("choose another with --out"),
        ) from error
    try:
        with _lock(work):
            if retry:
                forget_failed(work, stage_folders(planned))
                (out / MANIFEST).unlink(missing_ok=True)
            return _run(planned, out, workers or recipe.keys.np or os.cpu_count() or 1, progress, (started, cpu))
    except OSError as error:
        raise unwritable(error, None if error.filename else out) from error
    except KeyboardInterrupt as error:
        raise RunInterrupted(
            t("interrupted; finished parts are kept"), where=str(out), hint=t("run the same command again to continue")
        ) from error


@contextlib.contextmanager
def _lock(work: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the lock ends with the process, however it ends."""
    try:
        handle = (work / "lock").open("w")
    except OSError as error:
        raise DataError(t("cannot write to the output folder"), where=str(work), got=error.strerror) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                t("another run is using this folder"),
                where=str(work.parent),
                hint=t("wait for it, or choose another --out"),
            ) from error
        yield


def _run(
    planned: Plan, out: Path, workers: int, progress: Callable[[Progress], None] | None, started: tuple[float, float]
) -> Artifact:
    recipe, work = planned.recipe, out / WORK
    _sweep(out, work, _export(planned).name)
    root = Path(recipe.keys.image_root).expanduser() if recipe.keys.image_root else None
    if root is not None and not root.is_absolute() and not root.exists():
        root = recipe.base / root
    decodes = any(stage.pixels for stage in planned.stages)
    source = freeze(recipe.inputs(), work=work, image_root=root, options=read_options(recipe), decodes=decodes)
    write_atomic(work / "source.json", orjson.dumps(describe(source)))
    settings = settings_of(recipe, source)
    base = base_key(planned)
    run_key = digest_json([base, planned.digest, [s.digest for s in source.shards], _export(planned)])
    done = _finished(out, run_key)
    if done is not None:
        return done
    _forget_result(out, _export(planned).name)
    shards = [_Shard(digest_json([base, shard.file, shard.span.first_line, shard.digest])) for shard in source.shards]
    state = _State(shards)
    folders = stage_folders(planned)
    roots = [file.image_root for file in source.files]
    with ResultWriter(out, _export(planned), roots, tokens_of(recipe)) as writer:
        with pool_of(recipe, workers) as pool:
            for stage in planned.stages:
                folder = work / "stages" / folders[stage.number]
                _run_stage(stage, planned, source, settings, state, (pool, writer), folder, progress)
                _check_failures(state, source, recipe, out)
                if stage.reduces is not None:
                    _reduce(stage, settings, state, work)
        files = writer.finish()
    artifact = _finish(planned, out, source, state, _Outcome(run_key, workers, files, writer.rows, started))
    _clean(work, state)
    return artifact


def pool_of(recipe: Recipe, workers: int) -> Pool | RayPool:
    """Worker processes of our own, or Ray's where the recipe asks for them."""
    if not recipe.keys.executor_type.startswith("ray"):
        return Pool(workers)
    from bettersynth.engine.ray import RayPool

    return RayPool(workers, recipe.keys.ray_address)


def _export(planned: Plan) -> ExportSettings:
    return export.export_settings(planned.recipe, len(planned.operators))


def _finished(out: Path, run_key: str) -> Artifact | None:
    """The result of an earlier run of exactly this work, when it is whole."""
    if not Artifact.exists(out):
        return None
    try:
        artifact = Artifact.load(out)
    except DataError:
        return None
    return artifact if artifact.run.get("run_key") == run_key and not artifact.verify() else None


def _run_stage(
    stage: Stage,
    planned: Plan,
    source: Source,
    settings: Settings,
    state: _State,
    through: tuple[Pool | RayPool, ResultWriter],
    folder: Path,
    progress: Callable[[Progress], None] | None,
) -> None:
    pool, writer = through
    state.folders.add(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*"):
        leftover.unlink()
    jobs = _jobs(stage, source, state)
    found = {job.number: _marker(folder, job) for job in jobs}
    markers = {number: marker for number, marker in found.items() if marker is not None}
    todo = [job for job in jobs if job.number not in markers]
    state.cached += len(markers)
    state.computed += len(todo)
    at_once = rows_at_once(stage)
    verdict = str(state.verdict) if state.verdict else None
    has_scores = any(phase.kind == "score_keep" for phase in stage.phases)
    # The folder is the same for every threshold: its files are named after what goes into the stage.
    scores = str(folder.parent.parent / "scores") if has_scores else None
    is_shared = any(phase.has_models for phase in stage.phases)
    shared = str(_shared(planned, folder.parents[2])) if is_shared else None
    where = device_of(planned) if is_shared else ""
    lines = _export(planned).lines if stage is planned.stages[-1] else None
    job_stage = StageJob(
        *(stage.number, stage.phases, at_once, str(folder), settings, verdict, scores, shared, where, lines)
    )
    if scores:
        state.scores.update(f"{job.number:06d}.{job.input_key[:16]}" for job in jobs)
    names = tuple(dict.fromkeys(unwrap(phase.operator).name for phase in stage.phases))
    meter = StageMeter(stage.number + 1, len(planned.stages), names, len(jobs), list(markers.values()), state.markers)

    def report() -> None:
        if progress is not None:
            progress(meter.now())

    waiting = deque(jobs)

    def hand_on() -> None:
        """Give the shards that are done, as far as those before them are, to the result."""
        while waiting and waiting[0].number in markers:
            job = waiting.popleft()
            path, marker = folder / f"{job.number:06d}.trace", markers[job.number]
            writer.add_trace(path, marker)
            if lines is not None:
                writer.add_rows(path.with_suffix(".lines"), marker, source.shards[job.number].file)

    report()
    hand_on()
    # One copy of a model per accelerator; on the CPU every worker has its own.
    at_most = 1 if stage.models and device_of(planned) == "cuda" else None
    for done in pool.run(job_stage, todo, at_most=at_most):
        markers[done.shard.number] = done.marker
        meter.add(done.marker)
        report()
        hand_on()
    for job, shard in zip(jobs, state.shards, strict=True):
        marker = markers[job.number]
        shard.key, shard.rows, shard.digest = job.key, marker["rows"], marker["digest"]
        shard.path = folder / f"{job.number:06d}.arrow"
        state.markers.append(marker)
    state.verdict, state.verdict_key = None, ""


def _jobs(stage: Stage, source: Source, state: _State) -> list[ShardJob]:
    """One job per shard: its name in the cache, and where its rows come from."""
    jobs, offset = [], 0
    for number, shard in enumerate(state.shards):
        above = digest_json([shard.key, state.verdict_key])
        job = ShardJob(number, digest_json([stage.key(shard.key), state.verdict_key]), above)
        if stage.number == 0:
            job = replace(job, source=source.shards[number])
        else:
            job = replace(job, upstream=str(shard.path), upstream_digest=shard.digest, verdict_offset=offset)
        jobs.append(job)
        offset += shard.rows
    return jobs


def _shared(planned: Plan, out: Path) -> Path:
    """The folder in which several results share what models said."""
    named = planned.recipe.keys.ds_cache_dir or os.environ.get("BETTERSYNTH_CACHE")
    return Path(named).expanduser() if named else shared_folder(out)


def forget_failed(work: Path, folders: Sequence[str]) -> int:
    """Remove the markers of shards in which rows were set aside, and of what was made from them; returns how many."""
    forgotten: set[str] = set()
    for name in folders:
        for path in (work / "stages" / name).glob("*.json"):
            with contextlib.suppress(OSError, orjson.JSONDecodeError):
                if path.name in forgotten or orjson.loads(path.read_bytes())["quarantine"]:
                    forgotten.add(path.name)
                    path.unlink()
    return len(forgotten)


def _quarantined(markers: Sequence[dict[str, Any]]) -> int:
    return sum(len(marker["quarantine"]) for marker in markers)


def _marker(folder: Path, job: ShardJob) -> dict[str, Any] | None:
    """The marker of a shard that is done already, or None."""
    path = folder / f"{job.number:06d}.json"
    try:
        marker = dict(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        return None
    data = ".lines" if marker.get("lines") else ".arrow"
    is_whole = path.with_suffix(data).is_file() and trace.is_there(path.with_suffix(".trace"), marker)
    return marker if is_whole and marker.get("key") == job.key else None


def _reduce(stage: Stage, settings: Settings, state: _State, work: Path) -> None:
    """Let the global operator at the end of a stage decide over all rows; the decision is kept as a file."""
    phase = stage.reduces
    assert phase is not None  # the caller looks
    operator = phase.operator
    assert isinstance(operator, GlobalOperator)
    full = phase_key("reduce", unwrap(operator), _AnyDigest(), settings.seed)
    key = digest_json([full, [shard.digest for shard in state.shards]])
    name = f"verdict-{key[:16]}"
    path, facts_path = work / "stages" / f"{name}.arrow", work / "stages" / f"{name}.json"
    if not facts_path.is_file() or not path.is_file():
        tables = [
            load_arrow(shard.path, shard.digest, lambda n: n == ID or n.startswith(PARTIAL)) for shard in state.shards
        ]
        # An empty input has no shards at all.
        partials = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
        partials = partials.rename_columns([name.removeprefix(PARTIAL) for name in partials.column_names])
        verdict = (
            operator.reduce(partials, settings.context()) if partials.num_rows else Verdict(np.zeros(0, np.int64), [])
        )
        columns = {
            "copies": pa.array(verdict.copies, pa.int64()),
            "reason": pa.array(list(verdict.reasons), pa.string()),
        }
        columns |= {STATS + name: _one_chunk(values) for name, values in verdict.columns.items()}
        columns |= {FIELD + name: _one_chunk(values) for name, values in verdict.fields.items()}
        table = pa.table(columns)
        if table.num_rows != partials.num_rows:
            raise BetterSynthError(t("operator {name} did not decide on every row", name=operator.name))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        write_atomic(path, sink.getvalue().to_pybytes())
        write_atomic(facts_path, orjson.dumps(dict(verdict.facts), option=orjson.OPT_SERIALIZE_NUMPY))
    state.verdict, state.verdict_key = path, key
    state.folders.update((path.name, facts_path.name))
    facts = orjson.loads(facts_path.read_bytes())
    if facts:
        state.facts[f"{phase.step}:{operator.name}"] = facts


class _AnyDigest(dict[str, str]):
    """Model folders by their own name: the partials' digests already cover the models' contents."""

    def __missing__(self, key: str) -> str:
        return "model"


def _one_chunk(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _check_failures(state: _State, source: Source, recipe: Recipe, out: Path) -> None:
    failed = _quarantined(state.markers)
    allowed = recipe.keys.max_failed_ratio if recipe.keys.skip_op_error else 0.0
    if failed > allowed * source.lines:
        export.export_quarantine(out, state.markers)
        first = next(row for marker in state.markers for row in marker["quarantine"])
        raise DataError(
            t(
                "{failed} of {rows} rows failed, more than max_failed_ratio {ratio}",
                failed=failed,
                rows=source.lines,
                ratio=allowed,
            ),
            where=str(out / export.QUARANTINE_FILE),
            got=t(
                "first: line {line}, {operator}: {error}",
                line=first["line"],
                operator=first["operator"],
                error=first["error"],
            ),
            expected=t("at most {n} failed rows", n=int(allowed * source.lines)),
            hint=remedy(recipe, source, failed, first),
        )


def account(planned: Plan, markers: Sequence[dict[str, Any]]) -> list[Accounting]:
    """Rows of every operator over all shards, in recipe order after reading; checked to lose none.

    Raises:
        BetterSynthError: a row is unaccounted for, which is a bug.
    """
    totals = {step: count for (step, _), count in totals_of(markers).items()}
    listed = []
    for step, label in enumerate(step_labels(["read", *(operator.name for operator in planned.operators)]), -1):
        count = totals.get(step, StepCount())
        values = {**asdict(count), "dropped": dict(sorted(count.dropped.items())), "cpu_s": round(count.cpu_s, 3)}
        listed.append(Accounting(operator=label, **values))
    for before, after in zip(listed, [*listed[1:], None], strict=True):
        if not before.is_balanced() or (after is not None and before.rows_out != after.rows_in):
            raise BetterSynthError(
                t("rows are unaccounted for; please report this"), where=before.operator, got=str(before)
            )
    return listed


def _finish(
    planned: Plan,
    out: Path,
    source: Source,
    state: _State,
    outcome: _Outcome,
) -> Artifact:
    settings, files = _export(planned), outcome.files
    data_files = [name for name in files if not name.endswith(("_stats.jsonl", trace.TRACE_FILE))]
    quarantine_name, quarantined = export.export_quarantine(out, state.markers)
    files.append(quarantine_name)
    accounting = account(planned, state.markers)
    flags: Counter[str] = Counter()
    for marker in state.markers:
        flags.update(marker["flags"])
    keys = planned.recipe.keys
    if keys.open_tracer:
        export_samples(out, planned, source)
    if keys.export_path and is_url(keys.export_path):
        for name in data_files:
            send(out / name, f"{keys.export_path.rpartition('/')[0]}/{name}", keys.export_aws_credentials)
    counts = [{name: value for name, value in asdict(entry).items() if name != "cpu_s"} for entry in accounting]
    facts = {
        "name": keys.project_name,
        "recipe": planned.digest,
        "track": keys.track,
        "seed": keys.seed,
        "data": settings.name if settings.kind == "lance" else data_files[0].partition("/")[0],
        "rows_in": accounting[0].rows_in,
        "rows_out": outcome.rows,
        "quarantined": quarantined,
        "accounting": counts,
        "found": state.facts,
        "flags": dict(sorted(flags.items())),
        **({"data_files": data_files} if len(data_files) > 1 else {}),
        **({"left_out": source.left_out} if source.left_out else {}),
    }
    run = {
        "run_key": outcome.run_key,
        "workers": outcome.workers,
        "wall_s": round(time.perf_counter() - outcome.started[0], 3),
        "cpu_s": round(cpu_seconds() - outcome.started[1] + 0.0, 3),
        "cpu_s_by_operator": {entry.operator: entry.cpu_s for entry in accounting},
        "shards_computed": state.computed,
        "shards_cached": state.cached,
        "sources": [file.path for file in source.files],
        "steps": describe_steps(planned, state.facts),
        "image_roots": [file.image_root for file in source.files],
    }
    return write_manifest(out, kind="dataset", facts=facts, files=files, parents={"source": source.digest}, run=run)


def accounting_of(artifact: Artifact) -> tuple[Accounting, ...]:
    """The accounting records of a processed data set, with CPU seconds from the run that made it."""
    cpu = artifact.run.get("cpu_s_by_operator", {})
    entries = artifact.facts.get("accounting", ())
    return tuple(Accounting(**entry, cpu_s=cpu.get(entry["operator"], 0.0)) for entry in entries)


def _sweep(out: Path, work: Path, name: str) -> None:
    """Remove what a killed run has left half written; the lock says that nobody is writing now."""
    patterns = (
        f".{MANIFEST}.*",
        f".{export.QUARANTINE_FILE}.*",
        f".{trace.TRACE_FILE}*",
        f".{name}*",
        f"..{name}*",
        ".*_stats.jsonl.tmp",
    )
    places = [*(out.glob(pattern) for pattern in patterns), work.glob(".*"), (work / "stages").glob(".*")]
    for leftovers in [*places, (work / "scores").glob(".*")]:
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _forget_result(out: Path, name: str) -> None:
    """The folder holds no finished result from now on; an earlier version's trace would not belong to the next one.

    Args:
        name: of the result to come, which takes the place of a file of that name itself.
    """
    (out / MANIFEST).unlink(missing_ok=True)
    if name != _EARLIER_TRACE:
        (out / _EARLIER_TRACE).unlink(missing_ok=True)


def _clean(work: Path, state: _State) -> None:
    """Remove intermediate results that this run did not use."""
    for path in (work / "stages").iterdir():
        if path.name not in state.folders:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (work / "scores").glob("*"):
        if path.name not in state.scores:
            path.unlink()
