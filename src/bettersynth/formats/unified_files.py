"""Files of unified generation records: JSON, JSON lines, Parquet, WebDataset, one file or a folder of shards.

A record is the same whatever holds it. Pictures inside a file are written out once, by their content, and the record
then names those files; where it names none of them, they are its pictures in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import Conversation
from bettersynth.formats.jsonl import BadLine, read_rows
from bettersynth.formats.parquet import parquet_columns, read_parquet
from bettersynth.formats.pictures import keep_picture, picture_cache
from bettersynth.formats.unified import BadRecord, Problem, parse_record
from bettersynth.formats.webdataset import PICTURES, TEXTS, read_samples

SHARDS = (".parquet", ".tar")
ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", *SHARDS)
_FORMS = ("conversations", "text_prompt")


@dataclass(frozen=True, slots=True)
class _Held:
    """A picture that came with a record: the names that the record may use for it, and its path."""

    names: tuple[str, ...]
    path: str


def record_files(path: Path) -> list[Path]:
    """The files that a path of records stands for: itself, or the Parquet or tar shards of a folder (sorted by name).

    Raises:
        DataError: nothing is there, the ending is not known, or the folder holds no shards or those of several sets.
    """
    if path.is_dir():
        return _shards(path)
    if not path.is_file():
        raise DataError(t("data file not found"), where=str(path), expected=", ".join(ENDINGS))
    if not path.name.endswith(ENDINGS):
        message = t("records of texts and pictures are not read from such a file")
        raise DataError(message, where=str(path), expected=", ".join(ENDINGS))
    return [path]


def _shards(folder: Path) -> list[Path]:
    names = sorted(item.relative_to(folder) for item in folder.rglob("*") if item.name.endswith(SHARDS))
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise DataError(
            t("a folder without shards of records"),
            where=str(folder),
            expected=", ".join(SHARDS),
            hint=t("JSON files are given by themselves, or listed in a mixture"),
        )
    sets = sorted({re.sub(r"\d+", "#", name.as_posix()) for name in names})
    if len(sets) > 1:  # train-00000-of-00002.parquet beside test-00000-of-00001.parquet: nobody wants to train on both
        raise DataError(
            t("a folder with shards of several sets"),
            where=str(folder),
            got=", ".join(sets[:5]),
            hint=t("give every set a folder of its own, or list the files that you want in a mixture"),
        )
    return [folder / name for name in names]


def read_records(path: Path) -> Iterator[tuple[str, Conversation | BadRecord]]:
    """Records of a file or of a folder of shards, each with ``SHARD:`` for messages (nothing for one file).

    Raises:
        DataError: see :func:`record_files` and :func:`read_unified`.
    """
    for file in record_files(path):
        label = "" if file == path else f"{file.relative_to(path).as_posix()}:"
        yield from ((label, item) for item in read_unified(file))


def read_unified(path: Path) -> list[Conversation | BadRecord]:
    """Every record of one file in its place, good or bad.

    Raises:
        DataError: the file is missing or cannot be read at all.
    """
    if path.is_dir():
        raise DataError(t("a folder, not a file of records"), where=str(path), expected=", ".join(ENDINGS))
    record_files(path)
    if path.suffix == ".parquet":
        return list(_parquet(path))
    if path.suffix == ".tar":
        return list(_webdataset(path))
    return [
        BadRecord(row, value.id, (Problem(f"line {value.line}", value.reason, t("write one JSON object per record")),))
        if isinstance(value, BadLine)
        else parse_record(value, row)
        for row, value in enumerate(_json_values(path))
    ]


def _json_values(path: Path) -> Iterator[Any]:
    if path.suffix != ".json":
        yield from (value for _, value in read_rows(path))
        return
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise DataError(
            t("not valid JSON: {error}", error=error),
            where=str(path),
            hint=t("a file with one object per line is called .jsonl"),
        ) from error
    if not isinstance(data, list):
        raise DataError(t("not a JSON list"), where=str(path), got=type(data).__name__, expected="[{...}, ...]")
    yield from data


def _parquet(path: Path) -> Iterator[Conversation | BadRecord]:
    """One row is one record, its columns the record's keys; an empty cell is a key that is not there."""
    columns, folder = parquet_columns(path), picture_cache(path)
    if not set(_FORMS) & set(columns):
        raise DataError(
            t("no column of records"),
            where=str(path),
            got=", ".join(columns),
            expected="conversations; text_prompt, image_path",
            hint=t("Parquet of the original trainer becomes records with: bettersynth convert bagel-groups --help"),
        )
    for row, value in enumerate(read_parquet(path)):
        problems: list[Problem] = []
        record = _filled(value)
        turns = record.get("conversations")
        if isinstance(turns, str):
            record["conversations"] = turns = _json(turns, "conversations", problems)
        if problems:
            yield BadRecord(row, str(record.get("id", row)), tuple(problems))
            continue
        if isinstance(turns, list):
            record["conversations"] = turns = [_filled(turn) if isinstance(turn, Mapping) else turn for turn in turns]
        for holder in (record, *(turns if isinstance(turns, list) else ())):
            if isinstance(holder, dict) and _is_picture(holder.get("image_path")):
                holder["image_path"] = _written(holder["image_path"], folder)
        yield _checked(record, row, _pictures(record, folder, problems), problems)


def _filled(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cells.items() if value is not None}


def _is_picture(value: Any) -> bool:
    """Encoded bytes, or ``{"bytes", "path"}`` as Hugging Face data sets hold pictures."""
    return isinstance(value, bytes) or (isinstance(value, Mapping) and set(value) == {"bytes", "path"})


def _written(picture: bytes | Mapping[str, Any], folder: Path) -> str:
    """The path of a picture; one without bytes lies where its ``path`` says."""
    entry = {"bytes": picture, "path": ""} if isinstance(picture, bytes) else picture
    return str(keep_picture(folder, entry["bytes"])) if entry["bytes"] else str(entry["path"] or "")


def _pictures(record: dict[str, Any], folder: Path, problems: list[Problem]) -> list[_Held]:
    """Take the columns that hold pictures out of a record; a picture is named by its ``path`` or by its column."""
    held = []
    for column in [name for name in record if name != "conversations"]:
        cell = record[column]
        listed = cell if isinstance(cell, list) else [cell]
        if not any(_is_picture(item) for item in listed):
            continue
        del record[column]
        for place, item in enumerate(listed):
            name = f"{column}[{place}]" if isinstance(cell, list) else column
            path = _written(item, folder) if _is_picture(item) else ""
            if not path:
                problems.append(Problem(name, t("is empty"), t("give the bytes of the picture, or its path")))
                continue
            given = item["path"] if isinstance(item, Mapping) and item["path"] else name
            held.append(_Held((str(given), name), path))
    return held


def _webdataset(path: Path) -> Iterator[Conversation | BadRecord]:
    """Members with one key are one record: ``KEY.json``, or ``KEY.txt`` with the prompt, and its pictures."""
    folder, seen = picture_cache(path), set()
    for row, (name, members) in enumerate(read_samples(path)):
        key, problems = name.removeprefix("./"), list[Problem]()
        if key in seen:
            fix = t("the files of a sample follow one another, as with: tar --sort=name")
            problems.append(Problem(key, t("comes again"), fix))
        seen.add(key)
        record: Any = {}
        prompt, held, endings = None, [], set()
        for ending, data in members:
            name = f"{key}.{ending}"
            if ending in endings:
                problems.append(Problem(name, t("comes again"), t("pack every file once")))
            elif data is None:
                problems.append(Problem(name, t("is a link, not a file"), t("pack the files themselves")))
            elif ending == "json":
                record = _json(data, name, problems)
            elif ending in TEXTS:
                prompt = _text(data, name, problems)
            elif f".{ending}".endswith(PICTURES):
                held.append(_Held((name, name.rpartition("/")[2]), str(keep_picture(folder, data))))
            endings.add(ending)
        if problems:
            yield BadRecord(row, key, tuple(problems))
            continue
        if prompt is not None and isinstance(record, Mapping) and not set(_FORMS) & set(record):
            known = {name: record[name] for name in ("id", "image_path") if name in record}
            record = {**known, "text_prompt": prompt, "meta": dict(record)}
        yield _checked({"id": key, **record} if isinstance(record, Mapping) else record, row, held, problems, key)


def _json(text: str | bytes, name: str, problems: list[Problem]) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        problems.append(Problem(name, t("not valid JSON: {error}", error=error), t("write one JSON object per record")))
        return None


def _text(data: bytes, name: str, problems: list[Problem]) -> str:
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        problems.append(Problem(name, t("not UTF-8: {error}", error=error), t("write texts in UTF-8")))
        return ""


def _checked(
    record: Any, row: int, held: Sequence[_Held], problems: list[Problem], key: str = ""
) -> Conversation | BadRecord:
    """A record with the pictures that came with it in their places, or all that is wrong with both."""
    if isinstance(record, dict) and held:
        _place(record, held, problems)
    found = parse_record(record, row)
    if isinstance(found, BadRecord):
        return BadRecord(row, found.id or key, (*problems, *found.problems))
    return BadRecord(row, found.id, tuple(problems)) if problems else found


def _slots(record: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Where a record names pictures, in order: holders and keys of ``image_path``, or of LLaVA's ``image``."""
    if "conversations" not in record:
        return [(record, "image_path")] if "image_path" in record else []
    turns = record["conversations"]
    found: list[tuple[Any, Any]] = []
    if isinstance(turns, list):
        found = [(turn, "image_path") for turn in turns if isinstance(turn, dict) and "image_path" in turn]
    if not _is_llava(turns):
        return found
    if isinstance(record.get("image"), list):
        found += [(record["image"], place) for place in range(len(record["image"]))]
    elif isinstance(record.get("image"), str):
        found.append((record, "image"))
    return found


def _is_llava(turns: Any) -> bool:
    return isinstance(turns, list) and any(isinstance(turn, dict) and "from" in turn for turn in turns)


def _place(record: dict[str, Any], held: Sequence[_Held], problems: list[Problem]) -> None:
    """Replace the names of held pictures by their paths: by name, or else one after the other."""
    paths = {name.lower(): item.path for item in held for name in item.names}
    slots = _slots(record)
    named = [(holder, key) for holder, key in slots if str(holder[key]).removeprefix("./").lower() in paths]
    if named:
        for holder, key in named:
            holder[key] = paths[str(holder[key]).removeprefix("./").lower()]
        return
    turns = record.get("conversations")
    if slots and len(slots) == len(held):
        for (holder, key), item in zip(slots, held, strict=True):
            holder[key] = item.path
    elif not slots and _is_llava(turns):
        record["image"] = [item.path for item in held]
    elif not slots and turns is None and len(held) == 1:
        record["image_path"] = held[0].path
    else:
        message = t("{n} pictures beside a record that names {m}, none of them", n=len(held), m=len(slots))
        problems.append(Problem("image_path", message, t("call them as they are called: {names}", names=_names(held))))


def _names(held: Sequence[_Held]) -> str:
    return ", ".join(item.names[0] for item in held[:5])
