"""MMMU: college-level questions over 30 subjects, multiple choice or open, as in the official parquet files.

Official files: ``SUBJECT/validation-00000-of-00001.parquet`` in the task's folder. Answers are read as the official
parser reads them. Two scores: ``mmmu`` guesses an option where none can be read, as the original does (here from a seed
per question, so that a score can be repeated), ``mmmu-strict`` counts those as wrong. The models here look at one
picture per question, the first; questions with several have a group of their own.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.eval.metrics.open_answer import matches, read_open
from bettersynth.eval.protocol import Question, QuestionScore, Scoring, Target
from bettersynth.eval.tasks import _files

PROMPTS = {
    "mmmu": "the question, options as (A) ..., 'Answer with the option's letter ...' or '... a single word or phrase.'"
}
METRICS = ("option_accuracy", "open_answer")
CHANCE = "picking an option at random; nothing for open questions"
MAX_NEW_TOKENS = 128

MAX_PICTURES = 7
_CHOOSE = "Answer with the option's letter from the given choices directly."
_NAME = "Answer the question using a single word or phrase."
_COLUMNS = ("id", "question", "options", "answer", "question_type", "image_1")
DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
"""Domains and their subjects, in the paper's order."""


def question_files(target: Target) -> list[Path]:
    """The parquet files of the split (``validation`` by default), one per subject; or the one file that was named."""
    folder = _files.task_folder(target)
    if target.split and (folder / f"{target.split}.parquet").is_file():
        return [folder / f"{target.split}.parquet"]
    split = target.split or "validation"
    found = sorted([*folder.glob(f"{split}-*.parquet"), *folder.glob(f"*/{split}-*.parquet")])
    return found or [_files.find_one(folder, [f"*/{split}-*.parquet"], what=t("MMMU parquet file"))]


def samples(target: Target) -> list[Question]:
    """The questions, subject by subject.

    Raises:
        DataError: no file, an unreadable one, a missing column, or a damaged row.
    """
    return [
        _question(row, f"{path} {row.get('id', number)}")
        for path in question_files(target)
        for number, row in enumerate(_read(path))
    ]


def _read(path: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(t("damaged parquet file"), where=str(path), got=str(error).splitlines()[0]) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            t("the file lacks a column"),
            where=str(path),
            got=", ".join(table.column_names),
            expected=", ".join(missing),
        )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _listed(cell: object, where: str) -> list[str]:
    """Options or answers: a list, or one written as Python text.

    Raises:
        DataError: neither.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = ast.literal_eval(cell)
        except (ValueError, SyntaxError) as error:
            raise DataError(t("a cell is no list"), where=where, got=str(cell)[:80]) from error
    return [str(part) for part in cell] if isinstance(cell, list) else [str(cell)]


def _question(row: Mapping[str, Any], where: str) -> Question:
    key, is_open = str(row["id"]), row["question_type"] != "multiple-choice"
    options = [] if is_open else _listed(row["options"], where)
    if not is_open and len(options) < 2:
        raise DataError(t("a question has no options"), where=where)
    pictures = [row.get(f"image_{number}") for number in range(1, MAX_PICTURES + 1)]
    held = [picture["bytes"] for picture in pictures if picture and picture.get("bytes")]
    subject = "_".join(key.split("_")[1:-1]) or key
    answers = _listed(row["answer"], where)
    meta = {
        "options": {chr(ord("A") + number): option for number, option in enumerate(options)},
        "answers": tuple(answers),
        "answer": answers[0],
        "type": "open" if is_open else "multiple-choice",
        "pictures": len(held),
        "difficulty": str(row.get("topic_difficulty") or ""),
    }
    image = held[0] if held else None
    digest = digest_bytes(image) if image is not None else ""
    return Question(key, key, str(row["question"]), image, digest, key, subject, meta)


def prompt(question: Question, protocol: str) -> str:
    """What the model is asked, without the image marker and the conversation template."""
    if question.meta["type"] == "open":
        return f"{question.text}\n{_NAME}"
    options = "".join(f"({letter}) {text}\n" for letter, text in question.meta["options"].items())
    return f"{question.text}\n{options}\n{_CHOOSE}"


def read_letter(text: str, options: Mapping[str, str]) -> str:
    """The letter that an answer names, empty when none does; of several the one named last.

    Letters in brackets go before letters as words, these before the texts of options (answers of more than five words).

    Source: the multiple-choice parser of the MMMU repository, without its random choice.

    >>> read_letter("(B) or (C)", {"A": "x", "B": "y", "C": "z"}), read_letter("B.", {"A": "x", "B": "y"})
    ('C', 'B')
    """
    for mark in (",", ".", "!", "?", ";", ":", "'"):
        text = text.strip(mark)
    text = f" {text} "
    for form in ("({})", " {} "):
        places = {letter: text.rfind(form.format(letter)) for letter in options}
        if max(places.values()) >= 0:
            return max(places, key=lambda letter: places[letter])
    if len(text.split()) <= 5:
        return ""
    places = {letter: text.lower().rfind(option.lower()) for letter, option in options.items()}
    return max(places, key=lambda letter: places[letter]) if max(places.values()) >= 0 else ""


def evaluate(target: Target, questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Scoring]:
    """Accuracy with and without guessing, by domain, subject, type, difficulty and number of pictures.

    Raises:
        DataError: the split has no answers.
    """
    unknown = [question.key for question in questions if question.meta["answer"] in ("", "?")]
    if unknown:
        raise DataError(
            t("this split holds no answers"),
            where=str(question_files(target)[0]),
            got=t("{n} of {total} rows without answer", n=len(unknown), total=len(questions)),
        )
    guessed = tuple(_score(question, predictions[question.key], is_guessing=True) for question in questions)
    strict = tuple(_score(question, predictions[question.key], is_guessing=False) for question in questions)
    chance = sum(score.chance or 0.0 for score in strict) / len(strict)
    unread = sum(not score.extracted for score in strict)
    facts = {"unreadable answers": 100 * unread / len(strict)}
    return [
        Scoring("mmmu", guessed, chance, CHANCE, facts=facts),
        Scoring("mmmu-strict", strict, chance, CHANCE, facts=facts),
    ]


def _score(question: Question, given: str, *, is_guessing: bool) -> QuestionScore:
    meta, domain = question.meta, next((d for d, s in DOMAINS.items() if question.category in s), "")
    groups = [f"domain/{domain}"] if domain else []
    groups += [f"subject/{question.category}", f"question_type/{meta['type']}"]
    groups += [f"difficulty/{meta['difficulty']}"] if meta["difficulty"] else []
    groups.append(f"pictures/{'several' if meta['pictures'] > 1 else 'one' if meta['pictures'] else 'none'}")
    if meta["type"] == "open":
        found = read_open(given)
        extracted, score, chance = " / ".join(str(part) for part in found), float(matches(found, meta["answers"])), 0.0
    else:
        extracted = read_letter(given, meta["options"])
        if not extracted and is_guessing:
            extracted = random.Random(derive_seed(0, f"mmmu {question.key}")).choice(list(meta["options"]))
        score, chance = float(extracted == meta["answer"]), 1 / len(meta["options"])
    return QuestionScore(
        question.key, given, extracted, tuple(meta["answers"]), score, chance, tuple(groups), question.image_digest
    )


def write_kit_files(
    folder: Path, target: Target, asked: Sequence[tuple[Question, str, str]], model_id: str
) -> list[str]:
    """Write ``total_val_output.json`` in the official form: letter, or text of an open answer, by id."""
    found = {}
    for question, _, answer in asked:
        options = question.meta["options"]
        found[question.key] = read_letter(answer, options) if options else re.sub(r"\s+", " ", answer).strip()
    write_atomic(folder / "total_val_output.json", json.dumps(found, ensure_ascii=False, indent=1).encode())
    return ["total_val_output.json"]
