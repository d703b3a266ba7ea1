"""The work on one shard: read or load it, run a stage's phases over it, commit the result. Runs in any process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import BetterSynthError, DataError
from bettersynth.core.lang import language, set_language, t
from bettersynth.core.sample import RowKey
from bettersynth.engine import trace, view
from bettersynth.engine.arrow_files import concat, damaged, load_arrow, write_arrow, write_whole
from bettersynth.engine.jobs import BASE_SCHEMA, FIELD, PARTIAL, Quarantined, ShardJob, StageJob, StepCount
from bettersynth.engine.lines import lines_of
from bettersynth.engine.phase import Phase
from bettersynth.engine.reading import plain_batch
from bettersynth.engine.rounding import round_column
from bettersynth.engine.scores import Scores
from bettersynth.formats import jsonl
from bettersynth.formats.data_juicer import field_problem, nested
from bettersynth.ops._arrow import array, call, keep, take
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import (
    ID,
    IMAGES,
    KEY,
    RECORD,
    STATS,
    TEXT,
    Batch,
    Filter,
    Generator,
    GlobalOperator,
    Made,
    Mapper,
    Mask,
    Stats,
    row_keys,
    with_column,
)

if TYPE_CHECKING:
    from bettersynth.engine.results import Results

_READ_STEP = -1
_TEXT_BYTES_AT_ONCE = 4 << 20  # operators hold some twenty times as much
_DECIDING = ("keep", "verdict")
_CHILDREN_PER_STEP = 1000
_STEPS_WITH_CHILDREN = 100


class ShardRun:
    """Runs the phases of a stage over the rows of one shard and keeps count."""

    def __init__(self, stage: StageJob, shard: ShardJob, ctx: OpContext) -> None:
        self.stage, self.shard, self.ctx = stage, shard, ctx
        self.counts: dict[tuple[int, str], StepCount] = {}
        self.quarantine: list[Quarantined] = []
        self.events = trace.Events()
        self.verdict_row = 0
        self.keys: list[str] = []
        self.poisoned_mask: Any = None
        is_probe = shard.probe is not None
        kept = Path(stage.scores) / f"{shard.number:06d}.{shard.input_key[:16]}" if stage.scores else None
        self.scores = Scores(None if is_probe else kept)
        self.results: dict[str, Results] = {}
        self.rewritten = ""

    def run(self) -> pa.Table:
        """All rows that come out of the last phase."""
        done: list[Batch] = []
        rows = self._read() if self.shard.source is not None else self._load()
        verdict = self._verdict()
        if self.shard.probe is not None:
            self.keys = [str(key) for key in row_keys(rows)]
            start, stop = self.shard.probe
            rows, self.verdict_row = rows.slice(start, stop - start), start
        size = min(self.stage.rows_at_once, _TEXT_BYTES_AT_ONCE * rows.num_rows // max(1, rows.column(TEXT).nbytes))
        size = max(1, size)
        names = self._score_names()
        # At least one (perhaps empty) group runs, so that even an empty shard gets every column of the stage.
        for start in range(0, max(1, rows.num_rows), size):
            batch = rows.slice(start, size)
            for group in _groups(self.stage.phases):
                whole = self._filter_at_once(group, batch, names) if len(group) > 1 else None
                if whole is not None:
                    batch = whole
                    continue
                for phase in group:
                    self.rewritten = names[phase.key]
                    batch = self._phase(phase, batch, verdict)
            done.append(batch)
            self.ctx.forget_images()
        self.scores.save()
        for results in self.results.values():
            results.close()
        return concat(done)

    def _score_names(self) -> dict[str, str]:
        """For each phase a name of its scores: its own key after the keys of all phases before it that change rows."""
        names, before = {}, ""
        for phase in self.stage.phases:
            names[phase.key] = f"{phase.score_key[:16]}{before}"
            if phase.kind in ("apply", "make", "verdict"):
                before = xxhash.xxh3_64_hexdigest((before + phase.key).encode())
        return names

    def _cached(self, phase: Phase) -> Results | None:
        """The shared results of a phase with models, or None."""
        if self.stage.shared is None or not phase.has_models or phase.text_key or phase.image_key:
            return None
        from bettersynth.engine.results import Results  # a database, which most shards have no use for

        if phase.key not in self.results:
            self.results[phase.key] = Results(Path(self.stage.shared), phase, self.stage.where)
        return self.results[phase.key]

    def _read(self) -> Batch:
        source = self.shard.source
        assert source is not None  # run() looks at it first
        settings = self.stage.settings
        count = self._count(_READ_STEP, "read")
        path = Path(settings.files[source.file].path)
        data = jsonl.read_range(path, source.span)
        whole = None if self.shard.poisoned else plain_batch(data, source, settings, self.ctx)
        if whole is not None:
            count.rows_in = count.rows_out = whole.num_rows
            return whole
        rows: list[tuple[int, str, str, list[str], str]] = []
        is_checked = bool(settings.required or self.shard.poisoned or settings.on_missing_image == "quarantine")
        for number, line, record in jsonl.parsed_lines(data, first_line=source.span.first_line):
            count.rows_in += 1
            if isinstance(record, jsonl.BadLine):
                key = RowKey(source.file, number)
                self._set_aside(key, record.id, "read", record.reason, record.raw, count)
                continue
            problem = field_problem(record, text_key=settings.text_key, image_key=settings.image_key)
            if is_checked:
                problem = problem or self._problem(record, source.file, number)
            row_id = record.get("id")
            if problem is not None:
                raw = orjson.dumps(record).decode()[:10_000]
                key = RowKey(source.file, number)
                self._set_aside(key, "" if row_id is None else str(row_id), "read", problem, raw, count)
                continue
            name = str(RowKey(source.file, number)) if row_id is None else str(row_id)
            text, images = nested(record, settings.text_key), record.get(settings.image_key) or []
            rows.append((number, name, text, images, line.decode().strip()))
        count.rows_out = len(rows)
        numbers, *columns = zip(*rows, strict=True) if rows else ((),) * 5
        places = (np.full(len(rows), source.file), np.array(numbers, np.int64), np.zeros(len(rows), np.int64))
        listed = [*places, *map(list, columns)]
        arrays = [pa.array(values, kind.type) for values, kind in zip(listed, BASE_SCHEMA, strict=True)]
        return pa.record_batch(arrays, schema=BASE_SCHEMA)

    def _problem(self, record: dict[str, Any], file: int, line: int) -> str | None:
        """What else may be wrong with a record whose text and pictures have the right types."""
        settings = self.stage.settings
        problem = settings.required_problem(record)
        if problem is None and self.shard.poisoned and str(RowKey(file, line)) in self.shard.poisoned:
            return self._death()
        if problem is None and settings.on_missing_image == "quarantine":
            try:
                for image in record.get(settings.image_key) or ():
                    self.ctx.check_file(file, image)
            except DataError as error:
                return self._message(error)
        return problem

    def _load(self) -> Batch:
        path = Path(self.shard.upstream or "")
        table = load_arrow(path, self.shard.upstream_digest, lambda name: not name.startswith(PARTIAL))
        if not self.shard.poisoned:
            return concat(table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)])
        return self._without_poisoned(concat(table.to_batches()))

    def _without_poisoned(self, batch: Batch) -> Batch:
        bad = np.array([str(key) in self.shard.poisoned for key in row_keys(batch)])
        phase = self.stage.phases[0]
        count = self._count(phase.step, phase.operator.name)
        if phase.kind in _DECIDING:
            count.rows_out -= int(bad.sum())
        else:
            count.rows_in += int(bad.sum())
        for row in np.flatnonzero(bad).tolist():
            self._quarantine_row(batch.slice(row, 1), phase.operator.name, self._death(), count)
        self.poisoned_mask = bad
        return keep(batch, ~bad)

    def _death(self) -> str:
        names = dict.fromkeys(phase.operator.name for phase in self.stage.phases if phase.kind not in _DECIDING)
        return t("a worker process died on this row, in: {names}", names=", ".join(names))

    def _verdict(self) -> pa.Table | None:
        if self.stage.verdict is None:
            return None
        try:
            with pa.ipc.open_file(self.stage.verdict) as reader:
                table = reader.read_all().slice(self.shard.verdict_offset)
        except pa.ArrowInvalid as error:
            raise damaged(Path(self.stage.verdict)) from error
        mask = self.poisoned_mask
        return table if mask is None else keep(table.slice(0, len(mask)), ~mask)

    def _phase(self, phase: Phase, batch: Batch, verdict: pa.Table | None) -> Batch:
        started = time.process_time() + self.ctx.elsewhere_cpu_s
        count = self._count(phase.step, phase.operator.name)
        if phase.kind in _DECIDING:
            count.rows_out -= batch.num_rows  # they went into the operator, and were counted, in the stage before
        else:
            count.rows_in += batch.num_rows
        if phase.kind == "verdict":
            assert verdict is not None  # the executor gives one to every stage that begins with a verdict
            part = verdict.slice(self.verdict_row, batch.num_rows)
            self.verdict_row += batch.num_rows
            out = self._apply_verdict(phase, batch, part, count)
        elif phase.kind == "keep":
            out = self._keep(phase, batch, count)
        else:
            work = {
                "apply": self._map,
                "make": self._make,
                "score": self._score,
                "score_keep": self._score,
                "partial": self._partial,
            }[phase.kind]
            if phase.text_key is not None or phase.image_key is not None:
                out = self._guarded(
                    lambda part: view.leave(part, work(phase, view.enter(part, phase), count), phase),
                    *(batch, phase, count),
                )
            else:
                out = self._guarded(lambda part: work(phase, part, count), batch, phase, count)
            if phase.kind == "score_keep":
                out = self._keep(phase, out, count)
        count.rows_out += out.num_rows
        count.cpu_s += time.process_time() + self.ctx.elsewhere_cpu_s - started
        return out

    def _guarded(self, work: Callable[[Batch], Batch], batch: Batch, phase: Phase, count: StepCount) -> Batch:
        """Run ``work``; when it raises, halve the batch until the failing row stands alone and set that row aside."""
        try:
            return work(batch)
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, BetterSynthError) and not isinstance(error, DataError):
                raise
            if batch.num_rows > 1:
                middle = batch.num_rows // 2
                halves = (batch.slice(0, middle), batch.slice(middle))
                return concat([self._guarded(work, half, phase, count) for half in halves])
            if batch.num_rows == 0:
                raise
            self._quarantine_row(batch, phase.operator.name, self._message(error), count)
            return work(batch.slice(0, 0))

    def _map(self, phase: Phase, batch: Batch, count: StepCount) -> Batch:
        operator = phase.operator
        assert isinstance(operator, Mapper)
        cached = self._cached(phase)
        out = cached.applied(batch, self.ctx, operator.apply) if cached else operator.apply(batch, self.ctx)
        _check_contract(operator.name, batch, out)
        self._note_changed(phase, batch, out, count)
        return out

    def _note_changed(self, phase: Phase, batch: Batch, out: Batch, count: StepCount) -> None:
        """Count and trace rows with another text or other pictures."""
        operator = phase.operator
        changed = call("not_equal", batch.column(TEXT), out.column(TEXT))
        if IMAGES in operator.writes:
            images = zip(batch.column(IMAGES).to_pylist(), out.column(IMAGES).to_pylist(), strict=True)
            changed = call("or", changed, pa.array([a != b for a, b in images], pa.bool_()))
        rows = np.flatnonzero(changed.to_numpy(zero_copy_only=False))
        count.changed += len(rows)
        texts = {"before": batch.column(TEXT), "after": out.column(TEXT)}
        self._note(phase, "changed", out, rows, scores=_stat_names(operator), **texts)

    def _score(self, phase: Phase, batch: Batch, count: StepCount) -> Batch:
        stats, fresh = self._stats(phase, batch)
        if fresh is not None:
            self.scores.add(self.rewritten, *fresh)
        for name, values in stats.items():
            batch = with_column(batch, STATS + name, values)
        return batch

    def _stats(self, phase: Phase, batch: Batch) -> tuple[Stats, tuple[Batch, Stats] | None]:
        """The filter's stats: from the shared results (models), from this shard's kept scores, or computed.

        Also the rows whose stats were computed, with these, to be kept.
        """
        operator = phase.operator
        assert isinstance(operator, Filter)
        cached = self._cached(phase)
        if cached is not None:
            return {k: self._exact(v) for k, v in cached.stats(batch, self.ctx, operator.score).items()}, None
        known, there = self.scores.find(self.rewritten, batch)
        if batch.num_rows and there.all():
            return known, None
        missing = keep(batch, ~there) if there.any() else batch
        stats = {name: self._exact(values) for name, values in operator.score(missing, self.ctx).items()}
        if not there.any():
            return stats, (missing, stats)
        order = np.argsort(np.concatenate([np.flatnonzero(there), np.flatnonzero(~there)]))
        both = {n: pa.chunked_array([known[n].cast(stats[n].type), stats[n]]).combine_chunks() for n in stats}
        return {name: take(values, order) for name, values in both.items()}, (missing, stats)

    def _filter_at_once(self, phases: tuple[Phase, ...], batch: Batch, names: dict[str, str]) -> Batch | None:
        """Score all rows by several filters, then drop rows filter by filter; None when a filter fails on a row."""
        scored = []
        for phase in phases:
            started, self.rewritten = time.process_time(), names[phase.key]
            try:
                stats, fresh = self._stats(phase, batch)
            except DataError:
                return None
            except BetterSynthError:
                raise
            except Exception:  # noqa: BLE001 - one after the other they will find the row
                return None
            scored.append((stats, fresh, time.process_time() - started))
        stays, drops = np.ones(batch.num_rows, bool), []
        for phase, (stats, fresh, cpu_s) in zip(phases, scored, strict=True):
            started = time.process_time()
            count = self._count(phase.step, phase.operator.name)
            count.rows_in += int(stays.sum())
            if fresh is not None:
                self.scores.add(names[phase.key], *fresh)
            for name, values in stats.items():
                batch = with_column(batch, STATS + name, values)
            kept, drop = self._decide(phase, batch, stays, count)
            stays &= kept
            drops.append(drop)
            count.rows_out += int(stays.sum())
            count.cpu_s += cpu_s + time.process_time() - started
        self.events.note_groups(batch, drops)
        return batch if stays.all() else keep(batch, stays)

    def _exact(self, values: Any) -> Any:
        array = _plain_array(values)
        return round_column(array) if self.stage.settings.compat == "dj-executor" else array

    def _keep(self, phase: Phase, batch: Batch, count: StepCount) -> Batch:
        mask, drop = self._decide(phase, batch, np.ones(batch.num_rows, bool), count)
        self.events.note_groups(batch, [drop])
        return batch if mask.all() else keep(batch, mask)

    def _decide(
        self, phase: Phase, batch: Batch, there: Mask, count: StepCount
    ) -> tuple[Mask, tuple[Any, dict[str, Any]]]:
        """The rows that a filter keeps, and those of the rows still there that it drops: counted, to be traced."""
        operator = phase.operator
        assert isinstance(operator, Filter)
        stats = {name: batch.column(STATS + name) for name in _stat_names(operator)}
        mask = operator.keep(stats)
        dropped = np.flatnonzero(there & ~mask)
        reasons = operator.reasons(stats, dropped) if len(dropped) else []
        return mask, self._dropped(phase, batch, dropped, reasons, count)

    def _partial(self, phase: Phase, batch: Batch, count: StepCount) -> Batch:
        operator = phase.operator
        assert isinstance(operator, GlobalOperator)
        cached = self._cached(phase)
        found = cached.stats(batch, self.ctx, operator.partial) if cached else operator.partial(batch, self.ctx)
        for name, values in found.items():
            batch = with_column(batch, PARTIAL + name, _plain_array(values))
        return batch

    def _apply_verdict(self, phase: Phase, batch: Batch, verdict: pa.Table, count: StepCount) -> Batch:
        for name in verdict.column_names:
            if name.startswith(STATS):
                batch = with_column(batch, name, verdict.column(name).combine_chunks())
            elif name.startswith(FIELD):
                batch = with_column(batch, name.removeprefix(FIELD), verdict.column(name).combine_chunks())
        copies = verdict.column("copies").to_numpy()
        dropped = np.flatnonzero(copies == 0)
        if len(dropped):
            reasons = take(verdict.column("reason"), dropped).to_pylist()
            self._drop(phase, batch, dropped, reasons, count)
        if TEXT in phase.operator.writes:
            batch, copies = self._finish(phase, keep(batch, copies > 0), count), copies[copies > 0]
        if not len(copies) or copies.max() <= 1:
            return keep(batch, copies > 0)
        source = np.repeat(np.arange(len(copies)), copies)
        first = np.r_[True, source[1:] != source[:-1]] if len(source) else np.zeros(0, bool)
        return self._with_children(phase, take(batch, source), source, ~first, count)

    def _finish(self, phase: Phase, batch: Batch, count: StepCount) -> Batch:
        """What an operator that decided over all rows rewrites in those that stay."""
        operator = phase.operator
        assert isinstance(operator, GlobalOperator)
        seen = view.enter(batch, phase)
        out = operator.finish(seen, self.ctx)
        _check_contract(operator.name, seen, out)
        self._note_changed(phase, seen, out, count)
        return view.leave(batch, out, phase)

    def _make(self, phase: Phase, batch: Batch, count: StepCount) -> Batch:
        operator = phase.operator
        assert isinstance(operator, Generator)
        cached = self._cached(phase)
        made = cached.made(batch, self.ctx, operator.make) if cached else operator.make(batch, self.ctx)
        ids = take(batch.column(ID), made.source)
        if not made.batch.column(ID).equals(ids):
            raise BetterSynthError(t("operator {name} changed ids", name=operator.name))
        self._note_rewritten(phase, batch, made, count)
        gone = np.setdiff1d(np.arange(batch.num_rows), made.source[~made.is_child])
        if len(gone):
            self._drop(phase, batch, gone, [t("replaced by its children")] * len(gone), count)
        return self._with_children(phase, made.batch, made.source, made.is_child, count)

    def _note_rewritten(self, phase: Phase, batch: Batch, made: Made, count: StepCount) -> None:
        """Count and trace rows that stay under their own key with another text."""
        before = take(batch.column(TEXT), made.source)
        differs = call("not_equal", before, made.batch.column(TEXT)).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(differs & ~made.is_child)
        count.changed += len(rows)
        self._note(phase, "changed", made.batch, rows, before=before, after=made.batch.column(TEXT))

    def _with_children(self, phase: Phase, batch: Batch, source: Any, is_child: Any, count: StepCount) -> Batch:
        """Number child rows: parent's number, then the step, then a running number, so that no two keys are equal."""
        base = batch.column(KEY[2]).to_numpy().copy()
        running = 0
        for row in range(len(base)):
            running = 0 if row == 0 or source[row] != source[row - 1] else running
            if is_child[row]:
                running += 1
                if running >= _CHILDREN_PER_STEP or phase.step >= _STEPS_WITH_CHILDREN - 1 or base[row] > 10**12:
                    raise BetterSynthError(t("operator {name} makes too many rows from one", name=phase.operator.name))
                parent = int(base[row]) * _STEPS_WITH_CHILDREN * _CHILDREN_PER_STEP
                base[row] = parent + (phase.step + 1) * _CHILDREN_PER_STEP + running
        out = with_column(batch, KEY[2], array(base))
        rows = np.flatnonzero(is_child)
        count.rows_made += len(rows)
        self._note(phase, "made", out, rows, after=out.column(TEXT))
        return out

    def _drop(self, phase: Phase, batch: Batch, rows: Any, reasons: list[str], count: StepCount) -> None:
        self.events.note_groups(batch, [self._dropped(phase, batch, rows, reasons, count)])

    def _dropped(
        self, phase: Phase, batch: Batch, rows: Any, reasons: list[str], count: StepCount
    ) -> tuple[Any, dict[str, Any]]:
        """Count rows that go, and say so as :meth:`trace.Events.note_groups` takes it."""
        for reason, times in Counter(reasons).items():
            count.dropped[reason] = count.dropped.get(reason, 0) + times
        # A dropped row shows every score it had, so that distributions before and after can be drawn from the trace.
        names = [name.removeprefix(STATS) for name in batch.schema.names if name.startswith(STATS)]
        what = {"step": phase.step, "operator": phase.operator.name, "action": "dropped"}
        return rows, {**what, "reason": reasons, "scores": names, "before": batch.column(TEXT)}

    def _note(self, phase: Phase, action: str, batch: Batch, rows: Any, **columns: Any) -> None:
        """Remember what happened to some rows of a batch; ``columns`` as :meth:`trace.Events.note` takes them."""
        what = {"step": phase.step, "operator": phase.operator.name, "action": action}
        self.events.note(batch, rows, **what, **columns)

    def _quarantine_row(self, row: Batch, operator: str, error: str, count: StepCount) -> None:
        key = row_keys(row)[0]
        self._set_aside(key, row.column(ID)[0].as_py(), operator, error, row.column(RECORD)[0].as_py(), count)

    def _set_aside(self, key: RowKey, row_id: str, operator: str, error: str, record: str, count: StepCount) -> None:
        count.quarantined += 1
        self.quarantine.append(Quarantined(str(key), key.file, key.row, row_id, operator, error, record))
        step = next((phase.step for phase in self.stage.phases if phase.operator.name == operator), _READ_STEP)
        step = _READ_STEP if operator == "read" else step
        self.events.set_aside(key, row_id, step=step, operator=operator, reason=error)

    def _message(self, error: Exception) -> str:
        """An error as one line, with paths as the records write them, so that it reads the same on every machine."""
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, DataError):
            parts = [error.message, *(part for part in (error.where, error.got) if part)]
            text = ": ".join(parts)
        for file in self.stage.settings.files:
            text = text.replace(file.image_root + os.sep, "")
        return text[:500]

    def _count(self, step: int, name: str) -> StepCount:
        return self.counts.setdefault((step, name), StepCount())


def _groups(phases: tuple[Phase, ...]) -> list[tuple[Phase, ...]]:
    """The phases in order, neighbours together that score whole batches of texts, or of headers of pictures."""
    groups: list[tuple[Phase, ...]] = []
    for phase in phases:
        groups.append((*groups.pop(), phase) if groups and _goes_with(groups[-1][-1], phase) else (phase,))
    return groups


def _goes_with(before: Phase, phase: Phase) -> bool:
    are_fast = all(
        each.kind == "score_keep" and getattr(each.operator, "at_once", False) and not (each.text_key or each.image_key)
        for each in (before, phase)
    )
    return are_fast and before.operator.reads == phase.operator.reads


def _plain_array(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _stat_names(operator: Any) -> list[str]:
    columns = dict.fromkeys([*operator.writes, *operator.adds(), *operator.needs()])
    return [column.removeprefix(STATS) for column in columns if column.startswith(STATS)]


def _check_contract(name: str, before: Batch, after: Batch) -> None:
    """A mapper may not add, lose or reorder rows or touch their identity."""
    if after.num_rows != before.num_rows or any(not after.column(c).equals(before.column(c)) for c in (*KEY, ID)):
        raise BetterSynthError(
            t("operator {name} changed ids", name=name), expected=t("the same rows in the same order")
        )


def run_shard(stage: StageJob, shard: ShardJob, ctx: OpContext) -> dict[str, Any]:
    """Run a stage on a shard and commit the result: data, trace, then the marker that says so.

    The data are rows as Arrow; of the last stage the lines of the result and after them those of the stats file.

    Returns:
        The marker: rows, digests, counts per operator, quarantined rows; of the last stage the bytes of both files.
    """
    flags_before = Counter(ctx.flags)
    run = ShardRun(stage, shard, ctx)
    spoken = language()
    set_language("en")  # reasons are data: the same bytes whatever language the user reads
    try:
        rows = run.run()
    finally:
        set_language(spoken)
    if shard.probe is not None:
        return {"keys": run.keys}
    folder = Path(stage.folder)
    name = f"{shard.number:06d}"
    sizes: list[int] = []
    if stage.lines is None:
        data_digest = write_arrow(folder / f"{name}.arrow", rows)
    else:
        lines, beside = lines_of(rows, stage.lines)
        data_digest, sizes = write_whole(folder / f"{name}.lines", lines, beside), [len(lines), len(beside)]
        run.events.note(rows, None, step=stage.lines.num_steps, operator="", action="kept")
    marker = {
        "key": shard.key,
        "rows": rows.num_rows,
        "digest": data_digest,
        "lines": sizes,
        **trace.save(folder / f"{name}.trace", run.events),
        "counts": [[step, op, asdict(count)] for (step, op), count in run.counts.items()],
        "quarantine": [asdict(row) for row in run.quarantine],
        "flags": dict(ctx.flags - flags_before),
    }
    write_atomic(folder / f"{name}.json", orjson.dumps(marker))
    return marker
