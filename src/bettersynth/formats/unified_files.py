"""Files of unified generation records: JSON, JSON lines, Parquet, WebDataset, one file or a folder of shards.

A record is the same whatever holds it. Pictures inside a file are written out once, by their content, and the record
then names those files; where it names none of them, they are its pictures in the order of their numbers. What could
be one picture or another is a mistake of the record: pictures are never exchanged in silence.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import Conversation
from bettersynth.formats.jsonl import BadLine, read_rows
from bettersynth.formats.parquet import parquet_columns, read_parquet
from bettersynth.formats.pictures import keep_picture, picture_cache
from bettersynth.formats.unified import BadRecord, Problem, parse_record
from bettersynth.formats.unified_places import SHOWN, Held, place
from bettersynth.formats.webdataset import NO_ENDING, PICTURES, TEXTS, read_samples

SHARDS = (".parquet", ".tar")
ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", *SHARDS)
_FORMS = ("conversations", "text_prompt")
_NUMBERED = re.compile(r"(.*?)([0-9]+)-of-([0-9]+)(\.[^/]*)")


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
        raise _several(folder, sets)
    _check_numbers(folder, [name.as_posix() for name in names])
    return [folder / name for name in names]


def _several(folder: Path, sets: Sequence[str]) -> DataError:
    return DataError(
        t("a folder with shards of several sets"),
        where=str(folder),
        got=", ".join(sets[:5]),
        hint=t("give every set a folder of its own, or list the files that you want in a mixture"),
    )


def _check_numbers(folder: Path, names: Sequence[str]) -> None:
    """Refuse a set whose names say how many shards it has (``-00001-of-00003``) when some are not there."""
    sets: dict[tuple[str, str], dict[str, dict[int, int]]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            start, number, total, end = match.groups()
            sets.setdefault((start, end), {}).setdefault(total, {})[int(number)] = len(number)
    for (start, end), totals in sets.items():
        if len(totals) > 1:  # the remains of an earlier set
            raise _several(folder, [f"{start}#-of-{total}{end}" for total in totals])
        ((total, numbers),) = totals.items()
        first = int(int(total) in numbers and 0 not in numbers)  # most count from 0, some from 1
        wanted, width = range(first, first + int(total)), max(numbers.values())
        count = int(total) - sum(number in wanted for number in numbers)
        if count:
            gone = islice((number for number in wanted if number not in numbers), SHOWN)
            listed = [f"{start}{number:0{width}d}-of-{total}{end}" for number in gone]
            raise DataError(
                t("{n} shards of the set are missing", n=count),
                where=str(folder),
                got=", ".join([*listed, t("... {n} more", n=count - SHOWN)] if count > SHOWN else listed),
                hint=t("fetch them, or list the files that you want in a mixture"),
            )


def read_records(path: Path, left_out: Counter[str] | None = None) -> Iterator[tuple[str, Conversation | BadRecord]]:
    """Records of a file or of a folder of shards, each with ``SHARD:`` for messages (nothing for one file).

    Args:
        left_out: counts members of archives that are no part of a record, by their endings.

    Raises:
        DataError: see :func:`record_files` and :func:`read_unified`.
    """
    for file in record_files(path):
        label = "" if file == path else f"{file.relative_to(path).as_posix()}:"
        yield from ((label, item) for item in read_unified(file, left_out))


def read_unified(path: Path, left_out: Counter[str] | None = None) -> list[Conversation | BadRecord]:
    """Every record of one file in its place, good or bad; ``left_out`` as for :func:`read_records`.

    Raises:
        DataError: the file is missing or cannot be read at all.
    """
    if path.is_dir():
        raise DataError(t("a folder, not a file of records"), where=str(path), expected=", ".join(ENDINGS))
    record_files(path)
    if path.suffix == ".parquet":
        return list(_parquet(path))
    if path.suffix == ".tar":
        return list(_webdataset(path, Counter() if left_out is None else left_out))
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
    except (ValueError, OSError, RecursionError) as error:
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
        settled = _settle([record] if turns is None else turns, folder)
        held = _pictures(record, folder, problems)
        if held:
            place(record, held, problems, settled=settled, is_loose=False)
        yield _checked(record, row, problems)


def _settle(holders: Any, folder: Path) -> set[int]:
    """Write the pictures that ``image_path`` itself holds; the ids of those that need no other picture any more."""
    settled = set()
    for holder in holders if isinstance(holders, list) else ():
        cell: Any = holder.get("image_path") if isinstance(holder, dict) else None
        if _is_picture(cell):
            holder["image_path"] = _written(cell, folder)
            if cell if isinstance(cell, bytes) else cell["bytes"]:
                settled.add(id(holder))
    return settled


def _filled(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cells.items() if value is not None}


def _is_picture(value: Any) -> bool:
    """Encoded bytes, or ``{"bytes", "path"}`` as Hugging Face data sets hold pictures."""
    return isinstance(value, bytes) or (isinstance(value, Mapping) and set(value) == {"bytes", "path"})


def _written(picture: bytes | Mapping[str, Any], folder: Path) -> str:
    """The path of a picture; one without bytes lies where its ``path`` says."""
    entry = {"bytes": picture, "path": ""} if isinstance(picture, bytes) else picture
    return str(keep_picture(folder, entry["bytes"])) if entry["bytes"] else str(entry["path"] or "")


def _pictures(record: dict[str, Any], folder: Path, problems: list[Problem]) -> list[Held]:
    """Take the columns that hold pictures out of a record; a picture is named by its ``path`` or by its column."""
    held = []
    for column in [name for name in record if name != "conversations"]:
        cell = record[column]
        listed = cell if isinstance(cell, list) else [cell]
        if not any(_is_picture(item) for item in listed):
            continue
        del record[column]
        for number, item in enumerate(listed):
            name = f"{column}[{number}]" if isinstance(cell, list) else column
            path = _written(item, folder) if _is_picture(item) else ""
            if not path:
                problems.append(Problem(name, t("is empty"), t("give the bytes of the picture, or its path")))
                continue
            given = item["path"] if isinstance(item, Mapping) and item["path"] else name
            held.append(Held((name, str(given)), path, name))
    return held


def _webdataset(path: Path, left_out: Counter[str]) -> Iterator[Conversation | BadRecord]:
    """Members with one key are one record: ``KEY.json``, or ``KEY.txt`` with the prompt, and its pictures."""
    folder, seen = picture_cache(path), set()
    for row, (name, members) in enumerate(read_samples(path, left_out)):
        key, problems = name.removeprefix("./"), list[Problem]()
        if key in seen:
            fix = t("the files of a sample follow one another, as with: tar --sort=name")
            problems.append(Problem(key, t("comes again"), fix))
        seen.add(key)
        record, held = _sample(key, members, folder, problems)
        left_out.update(f".{ending}" if ending else NO_ENDING for ending, _ in members if not _is_known(ending))
        if problems:
            yield BadRecord(row, key, tuple(problems))
            continue
        if isinstance(record, dict):
            if record.get("id") is None:
                record = {**record, "id": key}
            if held:
                place(record, held, problems, settled=(), is_loose=True)
        yield _checked(record, row, problems, key)


def _is_known(ending: str) -> bool:
    return ending == "json" or ending in TEXTS or f".{ending}".endswith(PICTURES)


def _sample(
    key: str, members: Sequence[tuple[str, bytes | None]], folder: Path, problems: list[Problem]
) -> tuple[Any, list[Held]]:
    """What the members of one key hold: the record, whatever its JSON is, and the pictures."""
    record: Any = {}
    prompt, held, endings = "", [], list[str]()
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
            names = (name, name.rpartition("/")[2], ending)
            number = f".{ending}".rpartition(".")[0]
            held.append(Held(names, str(keep_picture(folder, data)), number))
        endings.append(ending)
    texts = sorted({ending for ending in endings if ending in TEXTS})
    if len(texts) > 1:
        message = t("is a second text beside {name}", name=f"{key}.{texts[0]}")
        problems.append(Problem(f"{key}.{texts[1]}", message, t("pack one text for each record")))
    elif texts and isinstance(record, dict):
        if not set(_FORMS) & set(record):
            known = {name: record[name] for name in ("id", "image_path") if name in record}
            record = {**known, "text_prompt": prompt, "meta": dict(record)}
        elif not any(isinstance(value, str) and value.strip() == prompt for value in record.values()):
            message = t("is a text that the record does not have")  # its copy, as exports pack it, loses nothing
            problems.append(Problem(f"{key}.{texts[0]}", message, t("keep it in the JSON only")))
    return record, held


def _json(text: str | bytes, name: str, problems: list[Problem]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(name, t("not valid JSON: {error}", error=error), t("write one JSON object per record")))
        return None


def _text(data: bytes, name: str, problems: list[Problem]) -> str:
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        problems.append(Problem(name, t("not UTF-8: {error}", error=error), t("write texts in UTF-8")))
        return ""


def _checked(record: Any, row: int, problems: list[Problem], key: str = "") -> Conversation | BadRecord:
    """The record, or all that is wrong with it and with the pictures that came with it."""
    found = parse_record(record, row)
    if isinstance(found, BadRecord):
        return BadRecord(row, found.id or key, (*problems, *found.problems))
    return BadRecord(row, found.id, tuple(problems)) if problems else found
