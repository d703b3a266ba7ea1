"""Generated answers and what they are compared with, read from the files in which they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.formats.jsonl import text_lines

RESULTS = "results.jsonl"
_TEXT_KEYS = ("text", "prediction", "caption", "prompt", "text_prompt", "answer")
_IMAGE_KEYS = ("image", "image_path")
_MANY_KEYS = ("references", "texts", "captions", "answers")


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture file and the text that it should show."""

    id: str
    image: Path
    text: str


def _lines(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, line in enumerate(text_lines(path), 1):
        where = f"{path}:{number}"
        if path.suffix not in (".jsonl", ".json"):
            found.append((where, {"text": line}))  # an empty line is an empty answer, and counts
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            hint = t("lines of plain text go into a file with another ending, e.g. .txt")
            raise DataError(t("not readable JSON"), where=where, got=error, hint=hint) from error
        found.append((where, record if isinstance(record, dict) else {"text": record}))
    return found


def _text(record: Mapping[str, Any], where: str) -> str:
    if "outputs" in record:  # a line of bettersynth generate
        return "\n".join(output["text"] for output in record["outputs"] if output["kind"] == "text")
    for key in _TEXT_KEYS:
        if isinstance(record.get(key), str):
            return str(record[key])
    raise DataError(t("no text in this line"), where=where, expected=" | ".join((*_TEXT_KEYS, *_MANY_KEYS)))


def read_texts(path: Path) -> dict[str, list[str]]:
    """Texts by id, in order: lines of text, or JSON lines with one text or a list of references each.

    Raises:
        DataError: a line that is not one of these, or an id twice.
    """
    found: dict[str, list[str]] = {}
    for number, (where, record) in enumerate(_lines(path)):
        name = str(record.get("id", number))
        if name in found:
            raise DataError(t("two lines have the same id"), where=where, got=name)
        found[name] = _many(record, where) or [_text(record, where)]
    if not found:
        raise DataError(t("no lines in this file"), where=str(path))
    return found


def _many(record: Mapping[str, Any], where: str) -> list[str]:
    """The texts of the first key that holds a list, or none."""
    for key in (*_MANY_KEYS, *_TEXT_KEYS):
        texts = record.get(key)
        if isinstance(texts, list):
            if not texts or not all(isinstance(text, str) for text in texts):
                expected = t("a list of at least one text")
                raise DataError(t("unsupported value"), where=f"{where} {key}", got=texts, expected=expected)
            return [str(text) for text in texts]
    return []


def matched(predictions: Path, references: Path) -> tuple[list[str], list[list[str]]]:
    """Predictions and their references by id.

    Raises:
        DataError: ids of one side that the other lacks, or several predictions for one.
    """
    said, wanted = read_texts(predictions), read_texts(references)
    several = [name for name, texts in said.items() if len(texts) > 1]
    if several:
        got = t("several for: {names}", names=", ".join(several[:5]))
        raise DataError(t("a prediction is one text"), where=str(predictions), got=got)
    _same_ids(list(said), list(wanted))
    return [texts[0] for texts in said.values()], [wanted[name] for name in said]


def _same_ids(one: Sequence[str], other: Sequence[str]) -> None:
    missing, extra = sorted(set(other) - set(one)), sorted(set(one) - set(other))
    if missing or extra:
        got = [t("missing: {names}", names=", ".join(missing[:5]))] if missing else []
        got += [t("unexpected: {names}", names=", ".join(extra[:5]))] if extra else []
        raise DataError(t("predictions and references do not match"), got="; ".join(got))


def read_pairs(path: Path) -> list[Pair]:
    """Pairs from JSON lines with a picture (relative to the file) and a text each.

    Raises:
        DataError: a line without picture or text, or no line at all.
    """
    pairs = []
    for number, (where, record) in enumerate(_lines(path)):
        image = next((record[key] for key in _IMAGE_KEYS if isinstance(record.get(key), str)), None)
        if image is None:
            raise DataError(t("no picture in this line"), where=where, expected=" | ".join(_IMAGE_KEYS))
        pairs.append(Pair(str(record.get("id", number)), path.parent / image, _text(record, where)))
    if not pairs:
        raise DataError(t("no lines in this file"), where=str(path))
    return pairs


def generated_pairs(folder: Path, prompts: Path) -> list[Pair]:
    """The first picture of every answer of ``bettersynth generate`` with its prompt.

    With several answers to a prompt (``--count``), ids have a number behind the prompt's.

    Raises:
        DataError: nothing generated here, an answer without picture, or one whose prompt is not in the file.
    """
    if not (folder / RESULTS).is_file():
        raise DataError(
            t("nothing generated here"),
            where=str(folder),
            expected=RESULTS,
            hint=t("make it with: {command}", command="bettersynth generate --prompts FILE --out DIR"),
        )
    texts = {name: lines[0] for name, lines in read_texts(prompts).items()}
    pairs = []
    for where, record in _lines(folder / RESULTS):
        name = str(record["id"])
        prompt = texts.get(name, texts.get(name.rpartition("-")[0]))
        image = next((output["image"] for output in record["outputs"] if "image" in output), None)
        if prompt is None:
            raise DataError(t("an answer whose prompt is not in the file"), where=where, got=name)
        if image is None:
            raise DataError(t("an answer without a picture"), where=where, got=name)
        pairs.append(Pair(name, folder / image, prompt))
    return pairs


def unanswered(prompts: Path, pairs: Sequence[Pair]) -> list[str]:
    """Ids of prompts without a picture among the pairs of :func:`generated_pairs`."""
    answered = {pair.id for pair in pairs}
    answered |= {name.rpartition("-")[0] for name in answered}
    return [name for name in read_texts(prompts) if name not in answered]


def files_digest(paths: Sequence[Path]) -> str:
    """One digest of several files' contents, so that a score says what it is of."""
    from bettersynth.core.fingerprint import digest_json

    return digest_json([digest_file(path) for path in paths])
