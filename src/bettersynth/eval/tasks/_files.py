"""Finding and reading the files of a benchmark, with errors that say what is there and what was looked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.eval.protocol import Target


def task_folder(target: Target) -> Path:
    """``FOLDER/TASK`` when it exists, else ``FOLDER`` itself."""
    inner = target.folder / target.task
    if inner.is_dir():
        return inner
    if not target.folder.is_dir():
        raise DataError(
            t("no evaluation folder here"),
            where=str(target.folder),
            expected=f"{target.folder.name}/{target.task}/",
            hint=t("give the folder that holds textvqa/ and mmbench/, in a kit toolkit/eval"),
        )
    return target.folder


def find_one(folder: Path, patterns: Sequence[str], *, what: str) -> Path:
    """The first file that a pattern matches, patterns in order of preference, names in order.

    Raises:
        DataError: none; the message lists what the folder holds.
    """
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found[0]
    present = sorted(path.name for path in folder.iterdir())[:8]
    raise DataError(
        t("no {what}", what=what),
        where=str(folder),
        got=", ".join(present) or t("an empty folder"),
        expected=" | ".join(patterns),
    )


def read_jsonl(path: Path, *, fields: Sequence[str]) -> list[dict[str, Any]]:
    """All lines as objects that hold the named fields.

    Raises:
        DataError: with file and line of the first damaged line.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(t("a line is not valid JSON"), where=where, got=str(error)) from error
        missing = [name for name in fields if not isinstance(row, dict) or name not in row]
        if missing:
            raise DataError(
                t("a line lacks a field"),
                where=where,
                got=t("no {keys}", keys=", ".join(missing)),
                expected=", ".join(fields),
            )
        wrong = [name for name in fields if not isinstance(row[name], str | int) or isinstance(row[name], bool)]
        if wrong:
            raise DataError(
                t("a field has the wrong type"),
                where=where,
                got=f"{wrong[0]}: {type(row[wrong[0]]).__name__}",
                expected=t("text"),
            )
        rows.append(row)
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        DataError: not valid JSON, or not an object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(t("not readable JSON"), where=str(path), got=str(error)) from error
    if not isinstance(document, dict):
        raise DataError(t("not a JSON object"), where=str(path), got=type(document).__name__)
    return document


def find_images(folder: Path, names: Iterable[str], places: Sequence[str]) -> dict[str, Path]:
    """Name to path of every picture, looked for in the sub-folders in turn and in the folder itself.

    Raises:
        DataError: pictures are missing; says how many and names the first.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in dict.fromkeys(names):
        tried = (folder / place / name for place in (*places, "."))
        path = next((candidate for candidate in tried if candidate.is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found[name] = path.absolute()
    if missing:
        raise DataError(
            t("{n} pictures are missing from the evaluation", n=len(missing)),
            where=str(folder / places[0]),
            got=", ".join(missing[:3]) + (" ..." if len(missing) > 3 else ""),
            expected=t("{n} pictures", n=len(found) + len(missing)),
            hint=t("unpack the evaluation pictures there; every question must be asked"),
        )
    return found
