"""TextVQA (val 0.5.1): short answers about text in pictures, scored by soft agreement with ten annotators.

Two protocols that are never pooled: ``textvqa-ocr`` asks as the challenge kit does, with the words that an OCR system
read given as a hint; ``textvqa-noocr`` is the same file with the hint removed, so the model has to read by itself.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.core.sample import ImageRef
from bettersynth.eval.metrics.vqa_accuracy import agreement, normalise
from bettersynth.eval.protocol import Question, QuestionScore, Scoring, Target
from bettersynth.eval.tasks import _files

PROMPTS = {
    "textvqa-ocr": "question, OCR words as a hint, one instruction line (the challenge kit's prompt)",
    "textvqa-noocr": "the same without the line of OCR words",
}
METRICS = ("vqa_accuracy",)
CHANCE = "the better of two blind answers: the best constant one, and per question text the best of the other questions"
MAX_NEW_TOKENS = 128

_HINT = "Reference OCR token: "
_INSTRUCTION = "Answer the question using a single word or phrase."
_OLD_HINT, _OLD_QUESTION, _OLD_END = "OCR tokens: ", "Question: ", " Short answer:"


@dataclass(frozen=True, slots=True)
class AskedText:
    """A ready question text taken apart: ``question`` + optional hint lines + instruction line."""

    question: str
    hint: str | None
    instruction: str


def kit_question(text: str) -> str:
    """The question as the original scorer recovers it from a prompt, lower-cased.

    Raises:
        ValueError: a form that stops the original.

    >>> kit_question("What?\\nReference OCR token: A, B\\nAnswer the question using a single word or phrase.")
    'what?'
    """
    if text.startswith(_OLD_HINT):
        return text.partition(_OLD_QUESTION)[2].partition(_OLD_END)[0].lower()
    lines = text.split("\n")
    if _HINT in text and len(lines) == 3:
        return lines[1 if text.startswith(_HINT) else 0].lower()
    if len(lines) == 2:
        return lines[0].lower()
    raise ValueError(f"{len(lines)} lines")


def take_apart(text: str) -> AskedText:
    """Like :func:`kit_question` for any text: questions and hints over several lines, other instructions, or none."""
    if text.startswith(_OLD_HINT):
        hint, _, rest = text.partition(_OLD_QUESTION)
        return AskedText(rest.partition(_OLD_END)[0], hint, "")
    lines = text.split("\n")
    if len(lines) == 1:
        return AskedText(text, None, "")
    body, instruction = lines[:-1], lines[-1]
    at = next((number for number, line in enumerate(body) if line.startswith(_HINT)), None)
    if at is None:
        return AskedText("\n".join(body), None, instruction)
    if at == 0:
        return AskedText(body[-1] if len(body) > 1 else "", "\n".join(body[:-1] or body), instruction)
    return AskedText("\n".join(body[:at]), "\n".join(body[at:]), instruction)


def bare_question(question: Question) -> str:
    """The question without OCR words and instruction, for tables and pages."""
    return take_apart(question.text).question


def prompt(question: Question, protocol: str) -> str:
    """What the model is asked, without the image marker and the conversation template."""
    if protocol == "textvqa-ocr":
        return question.text
    if question.text.startswith(_OLD_HINT):
        return question.text[question.text.index(_OLD_QUESTION) :]
    parts = take_apart(question.text)
    return question.text if parts.hint is None else f"{parts.question}\n{parts.instruction}"


def samples(target: Target) -> list[Question]:
    """The questions in file order.

    Raises:
        DataError: no question file, a damaged line, a missing picture (all counted, the first named), or a file without
            a single OCR hint asked for under ``textvqa-ocr``.
    """
    path = question_file(target)
    rows = _files.read_jsonl(path, fields=("question_id", "image", "text"))
    if target.protocol == "textvqa-ocr" and not any(_HINT in row["text"] or _OLD_HINT in row["text"] for row in rows):
        raise DataError(
            t("this question file has no OCR hints"), where=str(path), hint=t("use the protocol textvqa-noocr")
        )
    images = _files.find_images(
        _files.task_folder(target), [str(row["image"]) for row in rows], ("train_images", "images")
    )
    digests = {name: digest_file(image) for name, image in images.items()}
    seen: Counter[str] = Counter()
    questions = []
    for row in rows:
        identity, name = str(row["question_id"]), str(row["image"])
        seen[identity] += 1
        key = identity if seen[identity] == 1 else f"{identity}#{seen[identity]}"
        image = ImageRef(str(images[name]))
        questions.append(Question(key, identity, row["text"], image, digests[name], key, meta={"image": name}))
    return questions


def question_file(target: Target) -> Path:
    """The file of the wished split; the one with OCR hints serves both protocols when it is there."""
    folder = _files.task_folder(target)
    wished = [f"{target.split}.jsonl"] if target.split else ["llava_textvqa_val_v051_ocr.jsonl", "*_ocr.jsonl"]
    if not target.split and target.protocol != "textvqa-ocr":
        wished += ["llava_textvqa_val_v051.jsonl", "*textvqa*.jsonl"]
    return _files.find_one(folder, wished, what=t("TextVQA question file"))


# ---------------------------------------------------------------- scoring


class Annotations:
    """The ten answers of every question, found by picture and lower-cased question.

    Two annotated questions with the same text on the same picture are handed out in turn instead of the last one
    serving for both, as it does in the original.
    """

    def __init__(self, path: Path) -> None:
        self._exact: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        self._loose: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        self._given: Counter[int] = Counter()
        for entry in _read_annotation(path):
            image, text = str(entry["image_id"]), str(entry["question"]).lower()
            self._exact[image, text].append(entry)
            self._loose[image, " ".join(text.split())].append(entry)

    def find(self, question: Question) -> Mapping[str, Any] | None:
        """The annotation of a question, or None."""
        for text in _candidates(question.text):
            for table, form in ((self._exact, text), (self._loose, " ".join(text.split()))):
                entries = table.get((question.question_id, form))
                if entries:
                    turn = self._given[id(entries)]
                    self._given[id(entries)] += 1
                    return entries[min(turn, len(entries) - 1)]
        return None


def _candidates(text: str) -> list[str]:
    forms = [take_apart(text).question.lower(), text.lower()]
    with contextlib.suppress(ValueError):  # a form that stops the original: the other readings decide
        forms.insert(0, kit_question(text))
    return list(dict.fromkeys(forms))


def _read_annotation(path: Path) -> list[Mapping[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            t("damaged annotation file"), where=str(path), got=str(error), expected='{"data": [{"image_id": ...}]}'
        ) from error
    for number, entry in enumerate(entries):
        missing = [name for name in ("image_id", "question", "answers") if name not in entry]
        if missing:
            raise DataError(
                t("damaged annotation file"),
                where=f"{path} data[{number}]",
                got=t("no {keys}", keys=", ".join(missing)),
                expected="image_id, question, answers",
            )
    return list(entries)


def evaluate(target: Target, questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Scoring]:
    """Score the answers by their question key; questions without annotation are counted, never silently dropped.

    Raises:
        DataError: no annotation file, or not one question found in it.
    """
    path = _files.find_one(
        _files.task_folder(target), ["TextVQA_*.json", "*annotation*.json"], what=t("TextVQA annotation file")
    )
    annotations = Annotations(path)
    scored: list[QuestionScore] = []
    texts: list[str] = []
    unscored: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        entry = annotations.find(question)
        if entry is None or not entry["answers"]:
            unscored["no annotation" if entry is None else "no answers"].append(question.key)
            continue
        answers = tuple(normalise(str(answer)) for answer in entry["answers"])
        extracted = normalise(predictions[question.key])
        category = str(entry.get("category") or entry.get("question_type") or "")
        scored.append(
            QuestionScore(
                question.key,
                predictions[question.key],
                extracted,
                answers,
                agreement(answers.count(extracted), len(answers)),
                categories=(f"category/{category}",) if category else (),
                cluster=question.question_id,
            )
        )
        texts.append(str(entry["question"]).lower())
    if not scored:
        raise DataError(
            t("no question of the split is in the annotation file"), where=str(path), got=str(len(questions))
        )
    chance = blind_accuracy([score.answers for score in scored], texts)
    reasons = {reason: tuple(keys) for reason, keys in unscored.items()}
    return [Scoring(target.protocol, tuple(scored), chance, CHANCE, reasons)]


def blind_accuracy(answers: Sequence[Sequence[str]], texts: Sequence[str]) -> float:
    """What can be reached without looking at a picture, in 0-1.

    The better of: always giving the one answer that is best on this split; giving, for each question, the answer that
    is best on the *other* questions with the same text (the best constant one when there are none).

    Args:
        answers: normalised answers per question.
        texts: lower-cased question per question.
    """
    values = [{word: agreement(count, len(given)) for word, count in Counter(given).items()} for given in answers]
    overall = _sums(values)
    constant = _best(overall, {})
    groups: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        groups[text].append(number)
    by_text = 0.0
    for members in groups.values():
        sums = _sums([values[number] for number in members])
        for number in members:
            guess = constant if len(members) == 1 else _best(sums, values[number])
            by_text += values[number].get(guess, 0.0)
    return max(overall[constant], by_text) / len(values)


def _sums(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for value in values:
        for word, accuracy in value.items():
            total[word] += accuracy
    return dict(total)


def _best(sums: Mapping[str, float], own: Mapping[str, float]) -> str:
    return min(sums, key=lambda word: (-round(sums[word] - own.get(word, 0.0), 9), word))


def write_kit_files(
    folder: Path, target: Target, asked: Sequence[tuple[Question, str, str]], model_id: str
) -> list[str]:
    """Write ``answers.jsonl`` in the kit's form; ``asked`` holds (question, prompt, answer). Returns the file names."""
    lines = []
    for question, text, answer in asked:
        line = {
            "question_id": question.question_id,
            "prompt": text,
            "text": answer,
            "answer_id": digest_json([model_id, target.protocol, question.key, answer])[:22],
            "model_id": model_id,
            "metadata": {},
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(folder / "answers.jsonl", "".join(lines).encode())
    return ["answers.jsonl"]
