"""Read a stage's data file and tokenise it before training, so that every bad row is known before the first step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.formats.llava import Rejected as BadRecord
from bettersynth.formats.llava import read_llava, to_conversation
from bettersynth.media.header import read_header
from bettersynth.models.family import Processor, Rejected
from bettersynth.train.examples import ExampleStore, RejectedRow, TrainingSet


def choose_rows(rows: int, limit: int | None, seed: int) -> list[int]:
    """The rows that are used, in order: all, or as many as the limit drawn as the challenge kit draws them.

    Source: the challenge kit's sample check seeds ``random`` with 1024 and calls ``random.sample``; which positions
    that picks depends on the two counts only, so sampling positions here gives the same rows.
    """
    if limit is None or rows <= limit:
        return list(range(rows))
    return random.Random(seed).sample(range(rows), limit)


def prepare(config: StageConfig, processor: Processor) -> TrainingSet:
    """Tokenise the data of a stage and check that its pictures are there; opens no picture in full.

    Args:
        config: names data file, image folder, sample limit and what to do with bad samples.
        processor: the model family's processor.

    Raises:
        DataError: unreadable data, no usable row, or more bad rows than the config allows.
    """
    if config.unified is not None:
        from bettersynth.train.unified_data import prepare_unified

        return prepare_unified(config, processor)  # type: ignore[arg-type]
    items = read_rows(config.data)
    limit = min((n for n in (config.max_samples, config.samples_seen) if n is not None), default=None)
    chosen = choose_rows(len(items), limit, config.sample_seed)
    store, rejected = ExampleStore(), []
    for row in chosen:
        failure = _encode(items[row], row, processor, store)
        if failure is not None:
            rejected.append(failure)
    store, missing = _without_bad_images(store, config.images)
    rejected = sorted([*rejected, *missing], key=lambda item: item.row)
    notes = []
    if len(chosen) < len(items):
        notes.append(
            t(
                "{rows} rows sampled down to {kept} (seed {seed})",
                rows=len(items),
                kept=len(chosen),
                seed=config.sample_seed,
            )
        )
    result = TrainingSet(len(items), len(items) - len(chosen), store, tuple(rejected), tuple(notes))
    check_bad_ratio(config, len(chosen), result.rejected)
    if rejected:
        counted = ", ".join(f"{reason} {count}" for reason, count in result.reasons.items())
        result = replace(result, notes=(*notes, t("{n} rows left out: {reasons}", n=len(rejected), reasons=counted)))
    if not len(store):
        raise DataError(
            t("no usable training sample"), where=str(config.data), got=_first_reasons(result.rejected) or "0 rows"
        )
    return result


def read_rows(path: Path) -> list[dict[str, Any] | BadRecord]:
    """Every row of a LLaVA file in its place, a bad one with its reason. Raises DataError for an unreadable file."""
    reading = read_llava(path)
    bad = {item.row: item for item in reading.rejected}
    good = iter(reading.records)
    return [bad[row] if row in bad else next(good) for row in range(len(reading.records) + len(bad))]


def _encode(
    record: dict[str, Any] | BadRecord, row: int, processor: Processor, store: ExampleStore
) -> RejectedRow | None:
    if isinstance(record, BadRecord):
        return RejectedRow(row, record.id, "record", "bad_record", record.reason)
    key = str(record.get("id", ""))
    try:
        encoded = processor.encode(to_conversation(record))
    except DataError as error:
        return RejectedRow(row, key, "record", "bad_record", error.message)
    if isinstance(encoded, Rejected):
        return RejectedRow(row, key, "encode", encoded.reason, encoded.detail)
    store.add(encoded, row)
    return None


def _without_bad_images(store: ExampleStore, root: Path) -> tuple[ExampleStore, list[RejectedRow]]:
    """Drop examples whose picture is missing or has no readable header; the pixels are decoded while training."""
    verdicts: dict[str, str | None] = {}
    failures: dict[int, RejectedRow] = {}
    for index, paths in store.image_paths():
        for path in paths:
            if path not in verdicts:
                verdicts[path] = _image_problem(root / path)
            problem = verdicts[path]
            if problem is not None:
                row = store.rows[index]
                failures[index] = RejectedRow(row, store.key(index), "image", "bad_image", f"{problem}: {path}")
                break
    return (store.without(set(failures)) if failures else store), list(failures.values())


def _image_problem(path: Path) -> str | None:
    try:
        read_header(path)
    except DataError as error:
        return error.message
    return None


def check_bad_ratio(config: StageConfig, rows: int, rejected: Iterable[RejectedRow]) -> None:
    """Raise DataError when bad samples are more than the config tolerates."""
    bad = list(rejected)
    if not bad or (config.on_bad_sample == "quarantine" and len(bad) <= config.max_bad_ratio * rows):
        return
    tolerated = 0.0 if config.on_bad_sample == "stop" else config.max_bad_ratio
    raise DataError(
        t("{bad} of {rows} samples cannot be trained on", bad=len(bad), rows=rows),
        where=str(config.data),
        got=_first_reasons(bad),
        expected=t("at most {percent} % bad samples", percent=f"{100 * tolerated:g}"),
        hint=t(
            "pictures are looked for from {folder}: give --pretrain-images or --finetune-images", folder=config.images
        )
        if all(row.reason == "bad_image" for row in bad) and len(bad) == rows
        else t("mend or remove these rows, or raise max_bad_ratio"),
    )


def _first_reasons(rejected: Iterable[RejectedRow], count: int = 5) -> str:
    bad = list(rejected)
    shown = "; ".join(f"row {item.row} ({item.key}): {item.reason}, {item.detail}" for item in bad[:count])
    return shown + (f"; ... {len(bad) - count} more" if len(bad) > count else "")


def rejected_lines(rejected: Iterable[RejectedRow]) -> bytes:
    """JSON lines, one per rejected row."""
    lines = [json.dumps(asdict(item), ensure_ascii=False) for item in rejected]
    return ("\n".join(lines) + "\n" if lines else "").encode()
