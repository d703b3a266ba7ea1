"""ScienceQA: school science questions with two to five options, some with a picture, some without.

Official files: ``problems.json``, ``pid_splits.json`` and pictures ``images/SPLIT/ID/image.png``, in the task's folder
or in ``data/scienceqa``. ``scienceqa`` asks the whole split (``test`` unless another is named), ``scienceqa-img`` only
the questions with a picture. Every question's context is its hint; its lecture and solution are never shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.core.sample import ImageRef
from bettersynth.eval.protocol import Question, QuestionScore, Scoring, Target
from bettersynth.eval.tasks import _files

PROMPTS = {
    "scienceqa": "context (the hint, or N/A), question, lettered options, 'Answer with the option's letter ...'",
    "scienceqa-img": "the same, only questions with a picture",
    "scienceqa@letter": "the prompt of scienceqa; the answer is the option letter with the highest logit",
}
METRICS = ("option_accuracy",)
CHANCE = "picking an option at random"
MAX_NEW_TOKENS = 64

LETTERS = "ABCDE"
_SUFFIX = "\nAnswer with the option's letter from the given choices directly."
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
_STATED = (re.compile(r"The answer is ([A-E])\."), re.compile(r"The answer is ([A-E])"))
_LOWER_GRADES = frozenset(f"grade{number}" for number in range(1, 7))


def _folder(target: Target) -> Path:
    folder = _files.task_folder(target)
    inner = folder / "data" / "scienceqa"
    return inner if (inner / "problems.json").is_file() else folder


def samples(target: Target) -> list[Question]:
    """The split's questions in its own order.

    Raises:
        DataError: missing or damaged files, an unknown split, a wrong problem, or missing pictures.
    """
    folder = _folder(target)
    problems = _files.read_json(_files.find_one(folder, ["problems.json"], what=t("ScienceQA problem file")))
    splits = _files.read_json(_files.find_one(folder, ["pid_splits.json"], what=t("ScienceQA split file")))
    split = target.split if target.split not in ("", "problems", "pid_splits") else "test"
    if split not in splits:
        raise DataError(t("no such split"), where=str(folder), got=split, expected=", ".join(splits))
    chosen = [(str(key), _checked(problems, str(key), folder)) for key in splits[split]]
    if target.protocol == "scienceqa-img":
        chosen = [(key, problem) for key, problem in chosen if problem["image"]]
    names = {key: f"{problem['split']}/{key}/{problem['image']}" for key, problem in chosen if problem["image"]}
    images = _files.find_images(folder, list(names.values()), ("images",)) if names else {}
    return [_question(key, problem, images.get(names.get(key, ""))) for key, problem in chosen]


def _checked(problems: Mapping[str, Any], key: str, folder: Path) -> dict[str, Any]:
    """A problem with its fields in place.

    Raises:
        DataError: the problem is absent or lacks what is asked.
    """
    problem = problems.get(key)
    where = f"{folder / 'problems.json'} {key}"
    if not isinstance(problem, dict):
        raise DataError(t("the split names a problem that is not there"), where=where)
    choices, answer = problem.get("choices"), problem.get("answer")
    is_list = isinstance(choices, list) and 2 <= len(choices) <= len(LETTERS)
    if not is_list or not isinstance(answer, int) or not 0 <= answer < len(choices) or "question" not in problem:
        raise DataError(t("damaged problem"), where=where, expected=t("question, 2 to 5 choices, answer"))
    defaults = {"hint": "", "image": None, "subject": "", "grade": "", "split": "test", "topic": ""}
    return defaults | problem


def _question(key: str, problem: Mapping[str, Any], image: Path | None) -> Question:
    options = {LETTERS[number]: str(choice) for number, choice in enumerate(problem["choices"])}
    groups = [_SUBJECTS.get(str(problem["subject"]), "")]
    groups += ["TXT"] * bool(problem["hint"]) + ["IMG"] * (image is not None)
    groups += ["NO"] * (not problem["hint"] and image is None)
    groups.append("G1-6" if problem["grade"] in _LOWER_GRADES else "G7-12")
    meta = {"options": options, "answer": LETTERS[problem["answer"]], "hint": str(problem["hint"]).strip()}
    meta["groups"] = tuple(group for group in groups if group)
    place = ImageRef(str(image)) if image is not None else None
    digest = digest_file(image) if image is not None else ""
    return Question(key, key, str(problem["question"]), place, digest, key, str(problem["topic"]), meta)


def prompt(question: Question, protocol: str) -> str:
    """What the model is asked, without the image marker and the conversation template."""
    options = " ".join(f"({letter}) {text}" for letter, text in question.meta["options"].items())
    context = question.meta["hint"] or "N/A"
    return f"Context: {context}\nQuestion: {question.text}\nOptions: {options}{_SUFFIX}"


def choices(question: Question, protocol: str) -> tuple[str, ...]:
    """The letters that may be answered under ``scienceqa@letter``; none elsewhere: the answer is free text."""
    return tuple(question.meta["options"]) if protocol.endswith("@letter") else ()


def read_letter(text: str) -> str:
    """The letter of an answer, empty when none is stated: the bare letter, ``B. ...``, or ``The answer is B``.

    Source: LLaVA's ScienceQA scorer, whose readings these are; nothing is guessed for other answers.

    >>> [read_letter(text) for text in ("B", "C. the sun", "I think. The answer is A.", "the sun", "B) x")]
    ['B', 'C', 'A', '', '']
    """
    text = text.replace("\n", ". ")
    if text.strip() in tuple(LETTERS):
        return text.strip()
    if text[:1] in tuple(LETTERS) and text[1:3] == ". ":
        return text[0]
    stated = next((match for pattern in _STATED if (match := pattern.search(text))), None)
    return stated.group(1) if stated else ""


def evaluate(target: Target, questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Scoring]:
    """Accuracy, with the benchmark's own groups: subject, kind of context, grade."""
    scores = []
    for question in questions:
        given, answer = predictions[question.key], str(question.meta["answer"])
        letter = read_letter(given)
        letter = letter if letter in question.meta["options"] else ""
        categories = [f"group/{name}" for name in question.meta["groups"]]
        categories += [f"topic/{question.category}"] if question.category else []
        chance = 1 / len(question.meta["options"])
        shared = (question.key, given, letter, (answer,), float(letter == answer), chance, tuple(categories))
        scores.append(QuestionScore(*shared, question.image_digest or question.key))
    chance = sum(score.chance or 0.0 for score in scores) / len(scores)
    return [Scoring(target.protocol, tuple(scores), chance, CHANCE)]


def write_kit_files(
    folder: Path, target: Target, asked: Sequence[tuple[Question, str, str]], model_id: str
) -> list[str]:
    """Write ``scienceqa_results.json`` in the official form: option index (-1: none) and text by problem."""
    found = {question.key: LETTERS.find(read_letter(answer) or "-") for question, _, answer in asked}
    document = {"results": found, "outputs": {question.key: answer for question, _, answer in asked}}
    write_atomic(folder / "scienceqa_results.json", json.dumps(document, ensure_ascii=False, indent=1).encode())
    return ["scienceqa_results.json"]
