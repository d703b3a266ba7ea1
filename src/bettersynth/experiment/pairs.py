"""A user's own image-text pairs as the seed set of a kit folder, in both forms that a kit has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bettersynth.config.submission import TrackRules
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError, RuleError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.core.sample import DJ_EOC, DJ_IMAGE, LLAVA_IMAGE
from bettersynth.formats.data_juicer import DEFAULT_TOKENS
from bettersynth.formats.jsonl import BadLine, read_rows, write_rows
from bettersynth.formats.llava import llava_to_dj, record_problem, write_llava
from bettersynth.formats.read import nearest_file

MARK = "imported.json"
REJECTED = "rejected.jsonl"
REQUEST = "Describe the image concisely."
_TEXT_KEYS = ("text", "caption")


def import_pairs(pairs: Path, images: Path, workspace: Path, rules: TrackRules) -> str:
    """Make pairs the seed set; done before with the same file, nothing happens.

    Args:
        pairs: JSON lines or a JSON list of ``{"image", "text" or "caption", "id"?}``, Data-Juicer rows, or LLaVA
            records (whose questions are kept).
        images: folder that the picture paths start from; it is linked, not copied.
        rules: of the kit's track; they name the seed set's place.

    Returns:
        One sentence on what was done.

    Raises:
        RuleError: the track's seed set is fixed.
        DataError: unreadable or empty input, or the workspace has another seed set.
    """
    if check_import(pairs, images, workspace, rules):
        return t("own pairs: imported before")
    folder = workspace / "input" / rules.seed
    mark = folder / MARK
    rows, records, rejected = _sort(pairs)
    if not rows:
        first = rejected[0]["reason"] if rejected else t("nothing")
        raise DataError(t("no usable pair"), where=str(pairs), got=first, expected='{"image": …, "text": …}')
    folder.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    _link(folder / "images", images)
    write_llava(folder / "stage_1.json", records)
    write_rows(folder / f"mgm_{rules.seed}.jsonl", rows)
    write_rows(folder / REJECTED, rejected)
    write_atomic(mark, json.dumps(_stamp(pairs, images)).encode())
    told = t("own pairs: {n} in {folder}", n=len(rows), folder=folder)
    return told + (
        t("; {n} unusable, each with its reason in {name}", n=len(rejected), name=REJECTED) if rejected else ""
    )


def check_import(pairs: Path, images: Path, workspace: Path, rules: TrackRules) -> bool:
    """Whether :func:`import_pairs` was done before with the same file; raises what it would raise for the places."""
    if rules.is_challenge:
        raise RuleError(
            t("the seed set of track '{track}' is fixed", track=rules.name),
            [t("own pairs belong to the open track")],
            hint=t("make a kit for them with: bettersynth init FOLDER --track open"),
        )
    if not images.is_dir():
        raise DataError(t("no such folder"), where=str(images))
    folder = workspace / "input" / rules.seed
    stamp = _stamp(pairs, images)
    mark = folder / MARK
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == stamp:
        return True
    others = [path for path in workspace.glob("input/pretrain_stage_1*/*.json*") if path.parent != folder]
    if others or (folder.is_dir() and any(folder.iterdir()) and not mark.is_file()):
        raise DataError(
            t("the workspace has another seed set"),
            where=str(others[0].parent if others else folder),
            hint=t("make a kit for them with: bettersynth init FOLDER --track open"),
        )
    return False


def _stamp(pairs: Path, images: Path) -> dict[str, str]:
    return {"pairs": _digest(pairs), "images": str(images.resolve())}


def pair_rows(pairs: Path, image_token: str = DJ_IMAGE) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs as Data-Juicer rows whose picture paths stay as they are, and those that cannot be used.

    Args:
        pairs: see :func:`import_pairs`.

    Returns:
        The rows, and ``{"number", "reason", "record"}`` of each unusable pair; the number is its line in the file.

    Raises:
        DataError: unreadable, or no pair can be used.
    """
    _digest(pairs)
    rows, _, rejected = _sort(pairs, folder="", image_token=image_token)
    if not rows:
        first = rejected[0]["reason"] if rejected else t("nothing")
        raise DataError(t("no usable pair"), where=str(pairs), got=first, expected='{"image": …, "text": …}')
    return rows, rejected


def _digest(pairs: Path) -> str:
    if not pairs.is_file():
        raise DataError(t("no such file or folder"), where=str(pairs), hint=nearest_file(pairs))
    return digest_file(pairs)


def _link(place: Path, images: Path) -> None:
    if place.is_symlink():
        place.unlink()
    try:
        place.symlink_to(images.resolve(), target_is_directory=True)
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(place), got=error.strerror or str(error)) from error


def _sort(
    pairs: Path, *, folder: str = "images/", image_token: str = DJ_IMAGE
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Usable rows in both forms, and the others with their reason."""
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, (line, item) in enumerate(_items(pairs)):
        found = item.reason if isinstance(item, BadLine) else _pair(item, number, folder)
        if not isinstance(found, str) and found["id"] in seen:
            found = t("the id '{id}' is used twice", id=found["id"])
        if isinstance(found, str):
            shown = item.raw if isinstance(item, BadLine) else item
            rejected.append({"number": line, "reason": found, "record": shown})
            continue
        seen.add(found["id"])
        records.append(found)
        rows += llava_to_dj([found], only_keep_caption=len(found["conversations"]) == 2, image_token=image_token)
    return rows, records, rejected


def _items(pairs: Path) -> Iterator[tuple[int, Mapping[str, Any] | BadLine]]:
    """Each pair with its line in the file, or its place in a list (both from 1)."""
    if pairs.suffix != ".json":
        yield from read_rows(pairs)
        return
    try:
        items = json.loads(pairs.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(t("not valid JSON: {error}", error=error), where=str(pairs)) from error
    if not isinstance(items, list):
        raise DataError(t("not a JSON list"), where=str(pairs), got=type(items).__name__, expected="[{...}, ...]")
    for number, item in enumerate(items, 1):
        reason = t("not a JSON object but a {got}", got=type(item).__name__)
        yield number, item if isinstance(item, dict) else BadLine(number, reason, str(item)[:200])


def _pair(item: Mapping[str, Any], number: int, folder: str) -> dict[str, Any] | str:
    """The pair as a LLaVA record, or why it is none."""
    images = item.get("images") or [item.get("image")]
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
        return t("a pair has exactly one picture, named by 'image' or 'images'")
    path = PurePosixPath(images[0])
    if path.is_absolute() or ".." in path.parts:
        return t("the picture's path must lie inside the image folder: {path}", path=path)
    record = {"id": str(item.get("id", f"{number:09d}")), "image": f"{folder}{path}"}
    if "conversations" in item:
        problem = record_problem(item)
        turns = item["conversations"]
        first = "" if problem else turns[0]["value"].strip()
        if problem or len(turns) % 2 or not (first.startswith(LLAVA_IMAGE) or first.endswith(LLAVA_IMAGE)):
            return problem or t("the first question must start or end with {token}", token=LLAVA_IMAGE)
        return {**record, "conversations": [dict(turn) for turn in turns]}
    text = next((item[key] for key in _TEXT_KEYS if isinstance(item.get(key), str)), None)
    if text is None or not DEFAULT_TOKENS.strip(text).removesuffix(DJ_EOC).strip():
        return t("a pair needs a text in 'text' or 'caption'")
    question = {"from": "human", "value": f"{LLAVA_IMAGE}\n{REQUEST}"}
    return {**record, "conversations": [question, {"from": "gpt", "value": DEFAULT_TOKENS.strip(text)}]}
