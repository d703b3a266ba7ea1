"""The original BAGEL trainer's data groups as records and a mixture; what is drawn at random follows from a seed.

| group | data | becomes |
| --- | --- | --- |
| ``t2i_pretrain`` | Parquet rows: picture bytes ``image``, ``captions`` (JSON dictionary) | text-to-image records |
| ``unified_edit`` | Parquet rows: ``image_list``, ``instruction_list`` (alternatives per step) | editing records |
| ``vlm_sft`` | JSON lines in LLaVA form, with ``image`` | describing records |

The YAML names data sets; their paths stand in a Python file there, and here in a second YAML of the same names:
``t2i: {data_dir: ...}``, ``edit: {data_dir: ...}``, ``sft: {jsonl_path: ..., data_dir: ...}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bettersynth.config.load import load_yaml
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.core.sample import Conversation
from bettersynth.core.seed import generator
from bettersynth.formats.jsonl import BadLine, read_rows
from bettersynth.formats.parquet import read_parquet
from bettersynth.formats.pictures import PictureFolder
from bettersynth.formats.unified import BadRecord, parse_record
from bettersynth.media.header import read_header

GROUPS = ("t2i_pretrain", "unified_edit", "vlm_sft")
MIXTURE_FILE, REJECTED_FILE = "mixture.yaml", "rejected.jsonl"
Outcome = dict[str, Any] | str
"""A record, or why there is none."""


@dataclass
class Imported:
    """What was read: rows of every data set, records written, and rows left out with their reasons."""

    rows: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Set:
    group: str
    name: str
    used: int | None
    weight: float
    places: Mapping[str, Any]


def import_groups(config: Path, paths: Path, out: Path, *, seed: int = 42) -> Imported:
    """Read the groups of the original's data YAML; write one record file per data set, pictures, and a mixture.

    Args:
        config: the original's YAML (``configs/example.yaml`` and the like).
        paths: where each data set lies, by the names of the YAML.
        out: gets ``GROUP-NAME.jsonl``, ``images/``, ``mixture.yaml`` and ``rejected.jsonl``.
        seed: which of several captions or instructions is taken.

    Raises:
        ConfigErrors: every unknown group, data set without a path, and path that is not there.
    """
    sets = _read_sets(config, paths)
    result, sources = Imported(), []
    for item in sets:
        folder = PictureFolder(out, f"images/{item.group}-{item.name}")
        lines: list[str] = []
        number = -1
        for number, outcome in enumerate(_outcomes(item, folder, seed)):
            checked = parse_record(outcome, number) if isinstance(outcome, dict) else None
            damaged = _damaged(checked, folder) if isinstance(checked, Conversation) else ""
            if isinstance(outcome, dict) and isinstance(checked, Conversation) and not damaged:
                lines.append(json.dumps({"id": f"{item.name}-{number}", **outcome}, ensure_ascii=False))
                continue
            reason = checked.reason if isinstance(checked, BadRecord) else damaged or outcome
            result.rejected.append({"dataset": item.name, "row": number, "reason": reason})
        name = f"{item.group}-{item.name}.jsonl"
        write_atomic(out / name, "".join(line + "\n" for line in lines).encode())
        result.rows[item.name], result.records[item.name] = number + 1, len(lines)
        if lines:
            sources.append({"data": name, "weight": item.weight})
    write_atomic(out / MIXTURE_FILE, yaml.safe_dump({"datasets": sources}, sort_keys=False).encode())
    write_atomic(out / REJECTED_FILE, "".join(json.dumps(row) + "\n" for row in result.rejected).encode())
    return result


def _damaged(record: Conversation, folder: PictureFolder) -> str:
    """Which picture of a record is missing or damaged, or nothing; those that were written for it are removed.

    Pictures of ``vlm_sft`` stay where they are and are the user's: only what lies in our own folder is ours.
    """
    out = folder.root
    paths = [segment.image.path for segment in record.segments if segment.image is not None]
    for path in paths:
        try:
            read_header(out / path)
        except DataError as error:
            for written in paths:
                if written.startswith(f"{folder.name}/") and ".." not in Path(written).parts:
                    (out / written).unlink(missing_ok=True)
            return f"{path}: {error.message}"
    return ""


def _read_sets(config: Path, paths: Path) -> list[_Set]:
    """The data sets of all groups; a group's weight is shared by its data sets in equal parts."""
    groups, places = load_yaml(config).data, load_yaml(paths).data
    problems: list[BetterSynthError] = []
    found: list[_Set] = []
    for group, settings in groups.items():
        where = f"{config} {group}"
        if group not in GROUPS or not isinstance(settings, Mapping):
            expected = t("one of: {names}", names=", ".join(GROUPS))
            problems.append(ConfigError(t("unknown data group"), where=where, expected=expected))
            continue
        names = list(settings.get("dataset_names") or ())
        used = list(settings.get("num_used_data") or [None] * len(names))
        if len(used) != len(names) or not names:
            message = t("dataset_names and num_used_data must be lists of the same length")
            problems.append(ConfigError(message, where=where, got=f"{len(names)}, {len(used)}"))
            continue
        for name, count in zip(names, used, strict=True):
            place = places.get(name)
            problem = _place_problem(group, name, place, places, paths)
            if problem is not None:
                problems.append(problem)
                continue
            resolved = {key: paths.parent / str(value) for key, value in dict(place).items() if key in _PLACES}
            found.append(_Set(group, name, count, float(settings.get("weight", 1.0)) / len(names), resolved))
    if problems:
        raise ConfigErrors(problems, where=str(config))
    return found


_PLACES = ("data_dir", "jsonl_path")


def _place_problem(
    group: str, name: str, place: Any, places: Mapping[str, Any], paths: Path
) -> BetterSynthError | None:
    needed = ("jsonl_path",) if group == "vlm_sft" else ("data_dir",)
    if not isinstance(place, Mapping) or not all(place.get(key) for key in needed):
        hint = did_you_mean(name, [str(key) for key in places])
        return ConfigError(t("no path for this data set"), where=str(paths), got=name, expected=needed[0], hint=hint)
    for key in _PLACES:
        if place.get(key) and not (paths.parent / str(place[key])).exists():
            return DataError(t("not found"), where=f"{paths} {name}.{key}", got=paths.parent / str(place[key]))
    return None


def _outcomes(item: _Set, folder: PictureFolder, seed: int) -> Iterator[Outcome]:
    if item.group == "vlm_sft":
        yield from _vlm(item)
        return
    files = sorted(item.places["data_dir"].glob("**/*.parquet"))
    if not files:
        raise DataError(t("no Parquet files"), where=str(item.places["data_dir"]))
    make = _t2i if item.group == "t2i_pretrain" else _edit
    number = 0
    for path in files[: item.used]:
        for row in read_parquet(path):
            yield make(row, number, folder, seed)
            number += 1


def _t2i(row: Mapping[str, Any], number: int, folder: PictureFolder, seed: int) -> Outcome:
    data, captions = row.get("image"), row.get("captions")
    if isinstance(data, Mapping):
        data = data.get("bytes")
    if not isinstance(data, bytes):
        return t("no picture bytes in column 'image'")
    try:
        held = json.loads(captions) if isinstance(captions, str) else captions
    except ValueError:
        return t("column 'captions' holds no JSON")
    choices = [text for text in (held.values() if isinstance(held, Mapping) else ()) if isinstance(text, str) and text]
    if not choices:
        return t("no caption in column 'captions'")
    prompt = generator(seed, "t2i", number).choice(choices)
    return {"text_prompt": prompt, "image_path": folder.save(f"{number:08d}", data)}


def _edit(row: Mapping[str, Any], number: int, folder: PictureFolder, seed: int) -> Outcome:
    images, steps = row.get("image_list") or [], row.get("instruction_list") or []
    if len(images) < 2 or len(steps) < len(images) - 1:
        return t("{n} pictures need {m} instructions", n=len(images), m=max(1, len(images) - 1))
    if not all(isinstance(data, bytes) for data in images):
        return t("no picture bytes in column '{name}'", name="image_list")
    rng = generator(seed, "edit", number)
    turns = [_show("user", folder.save(f"{number:08d}-0", images[0]))]
    for place, (data, alternatives) in enumerate(zip(images[1:], steps, strict=False), 1):
        choices = [alternatives] if isinstance(alternatives, str) else [text for text in alternatives if text]
        if not choices:
            return t("step {n} has no instruction", n=place)
        turns.append({"role": "user", "type": "text", "content": rng.choice(choices)})
        turns.append(_show("assistant", folder.save(f"{number:08d}-{place}", data)))
    return {"conversations": turns}


def _show(role: str, path: str) -> dict[str, str]:
    return {"role": role, "type": "image", "image_path": path}


def _vlm(item: _Set) -> Iterator[Outcome]:
    root = item.places.get("data_dir")
    for _, row in islice(read_rows(item.places["jsonl_path"]), item.used):
        if isinstance(row, BadLine):
            yield row.reason
        elif row.get("video") is not None:
            yield t("videos are not supported")
        elif "conversations" not in row:
            yield t("missing key '{name}'", name="conversations")
        else:
            record = {key: value for key, value in row.items() if key in ("conversations", "image")}
            given = record.get("image")
            if root is not None and given:
                listed = [given] if isinstance(given, str) else list(given)
                record["image"] = [str((root / path).absolute()) for path in listed]
            yield record
