"""MMBench: multiple choice over 20 abilities, every question asked once per rotation of its options.

One set of answers (prompt protocol ``mmbench``) is scored three ways: ``mmbench-vanilla`` (base rows only),
``mmbench-circular`` (right in every rotation, letter inferred from free text) and ``mmbench-kit`` (right in every
rotation, the answer must *be* the letter). ``mmbench@kit`` reads the file as the challenge kit does, which loses real
options called "None" with all options after them; ``mmbench@cn`` asks in Chinese. ``mmbench@letter`` compares the
logits of the option letters in one forward pass instead of generating: cheap, always a letter, and another benchmark.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t
from bettersynth.eval.extract import exact_letter, infer_letter
from bettersynth.eval.protocol import Question, QuestionScore, Scoring, Target
from bettersynth.eval.tasks import _files, _xlsx

PROMPTS = {
    "mmbench": "hint, question, lettered options, 'Answer with the option's letter ...'",
    "mmbench@kit": "the same, cells such as None, NA and null read as missing, as the challenge kit does",
    "mmbench@cn": "the same with the Chinese instruction",
    "mmbench@letter": "the prompt of mmbench; the answer is the option letter with the highest logit, not free text",
}
METRICS = ("option_accuracy",)
CHANCE = "picking an option at random: 1/options per row, multiplied over the rotations that must all be right"
MAX_NEW_TOKENS = 1024

ROTATION = 1_000_000
"""Row index of rotation r of question k is ``r * ROTATION + k``."""
_SUFFIX = "\nAnswer with the option's letter from the given choices directly."
_SUFFIX_CN = "\n请直接回答选项字母。"
# Cells that the kit's csv reader (pandas with default settings) turns into "missing".
_KIT_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A")
).union(("NA", "NULL", "NaN", "None", "n/a", "nan", "null"))
_LETTER = re.compile("[A-Z]")
_DROPPED = frozenset({"hint", "category", "source", "image", "comment", "l2-category"})


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows of a tsv with quoted cells; every cell a string, nothing guessed.

    Raises:
        DataError: an empty file, a missing column, or a row of the wrong length or without a whole-number index.
    """
    limit = csv.field_size_limit(1 << 30)  # a cell holds a whole picture; the old limit is put back below
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = list(csv.reader(stream, delimiter="\t"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(t("damaged tsv file"), where=str(path), got=str(error)) from error
    finally:
        csv.field_size_limit(limit)
    header = table[0] if table else []
    missing = [name for name in ("index", "question", "image", "A", "B") if name not in header]
    if missing:
        raise DataError(
            t("the tsv lacks a column"), where=str(path), got="\t".join(header)[:200], expected=", ".join(missing)
        )
    rows = []
    for number, cells in enumerate(table[1:], 2):
        if not cells:
            continue  # a blank line
        if len(cells) != len(header) or not cells[header.index("index")].isdigit():
            raise DataError(
                t("damaged tsv row"),
                where=t("{path} row {n}", path=path, n=number),
                got=t("{n} cells, index {index}", n=len(cells), index=cells[0][:20] if cells else ""),
                expected=t("{n} cells and a whole-number index", n=len(header)),
            )
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def question_file(target: Target) -> Path:
    """The tsv of the wished split (``mmbench_dev_20230712``), or the only sensible one."""
    wished = [f"{target.split}.tsv"] if target.split else ["mmbench_dev_20230712.tsv", "*dev*.tsv", "*.tsv"]
    return _files.find_one(_files.task_folder(target), wished, what=t("MMBench tsv file"))


def samples(target: Target) -> list[Question]:
    """The rows in file order, one question per rotation.

    Raises:
        DataError: as :func:`read_rows`; a picture cell that is no picture; a row with fewer than two options.
    """
    path = question_file(target)
    rows = read_rows(path)
    read = kit_options if target.variant == "kit" else real_options
    pictures: dict[str, tuple[bytes, str]] = {}
    by_index = {row["index"]: row for row in rows}
    questions = []
    for row in rows:
        where = t("{path} row {n}", path=path, n=f"index {row['index']}")
        cell = row["image"]
        if len(cell) < 64 and cell in by_index:  # some copies of the file refer to another row's picture
            cell = by_index[cell]["image"]
        if cell not in pictures:
            pictures[cell] = _decode(cell, where)
        picture, digest = pictures[cell]
        options = read(row)
        if not options and target.variant != "kit":
            raise DataError(t("a question has no options"), where=where)
        hint = row.get("hint", "")
        is_missing = hint.lower() in ("", "nan", "none") or (target.variant == "kit" and hint in _KIT_MISSING)
        text = row["question"] if is_missing else f"{hint}\n{row['question']}"
        questions.append(_question(row, text, options, (picture, digest)))
    return questions


def _question(row: Mapping[str, str], text: str, options: Mapping[str, str], image: tuple[bytes, str]) -> Question:
    index = int(row["index"])
    columns = {name: cell for name, cell in row.items() if name not in _DROPPED}
    meta = {"index": index, "options": dict(options), "answer": row.get("answer", "").strip(), "columns": columns}
    meta["l2"] = row.get("l2-category", "")
    base = str(index % ROTATION)
    return Question(str(index), base, text, *image, base, row.get("category", ""), meta)


def _decode(cell: str, where: str) -> tuple[bytes, str]:
    try:
        data = base64.b64decode(cell, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(t("a picture cell is not base64"), where=where, got=cell[:20]) from error
    if not data:
        raise DataError(t("a picture cell is empty"), where=where)
    return data, digest_bytes(data)


def real_options(row: Mapping[str, str]) -> dict[str, str]:
    """Letter to option text; a cell "None" is an option. Ends at the first empty cell, or at a bare ``nan`` (a missing
    value written as text) unless the right answer lies there or later."""
    answer = row.get("answer", "").strip()
    options: dict[str, str] = {}
    for letter in sorted(name for name in row if _LETTER.fullmatch(name)):
        cell = row[letter]
        if cell == "" or (cell == "nan" and not (_LETTER.fullmatch(answer) and answer >= letter)):
            break
        options[letter] = cell
    return options


def kit_options(row: Mapping[str, str]) -> dict[str, str]:
    """Letter to option text as the kit's reader leaves them."""
    options: dict[str, str] = {}
    for letter in "ABCD":
        cell = row.get(letter, "")
        if cell in _KIT_MISSING or cell.lower() in ("nan", "none"):
            break
        options[letter] = cell
    return options


def question_with_options(text: str, options: Mapping[str, str]) -> str:
    """The question (its hint in front) and one ``A. ...`` line per option."""
    return text + "".join(f"\n{letter}. {option}" for letter, option in options.items())


def prompt(question: Question, protocol: str) -> str:
    """What the model is asked, without the image marker and the conversation template."""
    suffix = _SUFFIX_CN if protocol.endswith("@cn") else _SUFFIX
    return question_with_options(question.text, question.meta["options"]) + suffix


def choices(question: Question, protocol: str) -> tuple[str, ...]:
    """The letters that may be answered under ``mmbench@letter``; none elsewhere: the answer is free text."""
    return tuple(question.meta["options"]) if protocol.endswith("@letter") else ()


def rounds(question: Question) -> list[tuple[str, list[str]]]:
    """(question with options, letter in the row of each shown option) for every left rotation of the option texts.

    The original's all-rounds switch, for files without ready rotations; no instruction line.
    """
    options: Mapping[str, str] = question.meta["options"]
    letters, texts = list(options), list(options.values())
    turned = [(letters[n:] + letters[:n], texts[n:] + texts[:n]) for n in range(len(letters))]
    return [
        (question_with_options(question.text, dict(zip(letters, shown, strict=True))), origin)
        for origin, shown in turned
    ]


# ---------------------------------------------------------------- scoring

Extract = Callable[[Question, str], str]


def _inferred(question: Question, answer: str) -> str:
    return infer_letter(answer, question.meta["options"])


def _exact(_question: Question, answer: str) -> str:
    return exact_letter(answer)


def evaluate(target: Target, questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Scoring]:
    """Score the answers under the three rules.

    Rows of a question whose base row (index below one million) is absent are counted as unscored.

    Raises:
        DataError: the split has no answers (a test split).
    """
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.unit].append(question)
    unanswered = [question.key for question in questions if not question.meta["answer"]]
    if unanswered:
        raise DataError(
            t("this split holds no answers"),
            where=str(question_file(target)),
            got=t("{n} of {total} rows without answer", n=len(unanswered), total=len(questions)),
            hint=t("send the xlsx file to the benchmark's server instead"),
        )
    orphans = [q.key for group in groups.values() if not any(map(_is_base, group)) for q in group]
    whole = [group for group in groups.values() if any(map(_is_base, group))]
    base = [[question for question in group if _is_base(question)] for group in whole]
    unscored = {"no base row": tuple(orphans)} if orphans else {}
    suffix = f"@{target.variant}" if target.variant else ""
    rules: list[tuple[str, list[list[Question]], Extract]] = [
        ("mmbench-vanilla", base, _inferred),
        ("mmbench-circular", whole, _inferred),
        ("mmbench-kit", whole, _exact),
    ]
    scorings = []
    for name, units, extract in rules:
        scored = tuple(_score_unit(unit, predictions, extract) for unit in units)
        chance = math.fsum(score.chance or 0.0 for score in scored) / max(1, len(scored))
        scorings.append(Scoring(name + suffix, scored, chance, CHANCE, unscored))
    return scorings


def _is_base(question: Question) -> bool:
    return int(question.meta["index"]) < ROTATION


def _score_unit(unit: Sequence[Question], predictions: Mapping[str, str], extract: Extract) -> QuestionScore:
    given = [predictions[question.key] for question in unit]
    letters = [extract(question, answer) for question, answer in zip(unit, given, strict=True)]
    answers = tuple(str(question.meta["answer"]) for question in unit)
    first = unit[0]
    named = (("category", first.category), ("l2", str(first.meta["l2"])))
    return QuestionScore(
        first.unit,
        " | ".join(given),
        " | ".join(letters),
        answers,
        float(all(letter == answer for letter, answer in zip(letters, answers, strict=True))),
        math.prod(_row_chance(question) for question in unit),
        tuple(f"{kind}/{name}" for kind, name in named if name),
        first.image_digest,
    )


def _row_chance(question: Question) -> float:
    options: Mapping[str, str] = question.meta["options"]
    return 1 / len(options) if question.meta["answer"] in options else 0.0


# ---------------------------------------------------------------- submission


def submission(
    questions: Sequence[Question], predictions: Mapping[str, str], *, compat: str = ""
) -> list[list[str | int | None]]:
    """The kit's table, header first: the file's columns without pictures and categories, ``prediction`` the seventh."""
    columns = list(questions[0].meta["columns"])
    columns.insert(6, "prediction")
    table: list[list[str | int | None]] = [list(columns)]
    missing = _KIT_MISSING if compat == "kit" else frozenset({""})
    for question in questions:
        cells: Mapping[str, str] = question.meta["columns"]
        row: list[str | int | None] = []
        for name in columns:
            if name == "prediction":
                row.append(predictions[question.key])
            elif name == "index":
                row.append(int(question.meta["index"]))
            else:
                row.append(None if cells[name] in missing else cells[name])
        table.append(row)
    return table


def score_submission(rows: Sequence[Mapping[str, object]]) -> float:
    """The challenge kit's score of a submission table, in 0-1: exact letters, right in every rotation."""
    right: dict[int, bool] = {}
    for row in rows:
        unit = int(str(row["index"])) % ROTATION
        right[unit] = right.get(unit, True) and row["prediction"] == row["answer"]
    base = [int(str(row["index"])) for row in rows if int(str(row["index"])) < ROTATION]
    return sum(right[unit] for unit in base) / max(1, len(base))


def write_kit_files(
    folder: Path, target: Target, asked: Sequence[tuple[Question, str, str]], model_id: str
) -> list[str]:
    """Write ``SPLIT.xlsx`` in the kit's form; ``asked`` holds (question, prompt, answer). Returns the file names."""
    questions = [question for question, _, _ in asked]
    answers = {question.key: answer for question, _, answer in asked}
    stream = io.BytesIO()
    _xlsx.write(stream, submission(questions, answers, compat=target.variant))
    name = f"{question_file(target).stem}.xlsx"
    write_atomic(folder / name, stream.getvalue())
    return [name]
