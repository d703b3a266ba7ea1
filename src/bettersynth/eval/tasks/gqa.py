"""GQA: compositional questions about scenes with one short right answer.

Official files: ``testdev_balanced_questions.json`` (or another split's), pictures ``images/ID.jpg`` and, for validity
and plausibility, the split's ``*_choices.json``. Questions that are not balanced are asked only where the file holds
them and counted only for consistency, as in the official scorer. Answers are lower-cased and lose a final stop, as
LLaVA's conversion does, and must then equal the right one.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.core.sample import ImageRef
from bettersynth.eval.protocol import Question, QuestionScore, Scoring, Target
from bettersynth.eval.tasks import _blind, _files

PROMPTS = {"gqa": "the question, 'Answer the question using a single word or phrase.'"}
METRICS = ("exact_match",)
CHANCE = _blind.METHOD
MAX_NEW_TOKENS = 128

_INSTRUCTION = "\nAnswer the question using a single word or phrase."
_SEMANTIC = {"attr": "attribute", "cat": "category", "global": "scene", "obj": "object", "rel": "relation"}
_ANSWERING_STEPS = ("exist", "query: name", "choose name")
_COMMON = ("color", "material", "shape")


def question_file(target: Target) -> Path:
    """The question file of the split, the balanced test-dev one by default."""
    wished = ["testdev_balanced_questions.json", "val_balanced_questions.json", "*_questions.json"]
    wished = [f"{target.split}.json", f"{target.split}_questions.json"] if target.split else wished
    places = [*wished, *(f"questions*/{name}" for name in wished)]
    return _files.find_one(_files.task_folder(target), places, what=t("GQA question file"))


def samples(target: Target) -> list[Question]:
    """The questions in file order.

    Raises:
        DataError: no question file, a damaged question, or missing pictures.
    """
    path = question_file(target)
    rows: dict[str, Any] = _files.read_json(path)
    for key, row in rows.items():
        missing = [name for name in ("question", "answer", "imageId") if not isinstance(row, dict) or name not in row]
        if missing:
            raise DataError(
                t("a question lacks a field"),
                where=f"{path} {key}",
                got=t("no {keys}", keys=", ".join(missing)),
                expected="question, answer, imageId",
            )
    names = {key: f"{row['imageId']}.jpg" for key, row in rows.items()}
    images = _files.find_images(_files.task_folder(target), list(names.values()), ("images", "allImages/images"))
    digests = {name: digest_file(image) for name, image in images.items()}
    questions = []
    for key, row in rows.items():
        name = names[key]
        meta = {field: row[field] for field in ("answer", "types", "groups", "entailed", "semantic") if field in row}
        meta |= {"isBalanced": bool(row.get("isBalanced", True)), "imageId": str(row["imageId"])}
        image = ImageRef(str(images[name]))
        questions.append(Question(key, key, str(row["question"]), image, digests[name], key, meta=meta))
    return questions


def prompt(question: Question, protocol: str) -> str:
    """What the model is asked, without the image marker and the conversation template."""
    return question.text + _INSTRUCTION


def read_answer(text: str) -> str:
    """The answer as it is compared: final stops dropped, lower case.

    >>> read_answer("Yes."), read_answer("The dog")
    ('yes', 'the dog')
    """
    return text.rstrip(".").lower()


def evaluate(target: Target, questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Scoring]:
    """Accuracy over the balanced questions; consistency, validity, plausibility and distribution beside it.

    Raises:
        DataError: no balanced question.
    """
    given = {question.key: read_answer(predictions[question.key]) for question in questions}
    balanced = [question for question in questions if question.meta["isBalanced"]]
    if not balanced:
        raise DataError(t("no balanced question in the file"), where=str(question_file(target)))
    scores = [_score(question, predictions[question.key], given[question.key]) for question in balanced]
    answers = [str(question.meta["answer"]) for question in balanced]
    types = [str(question.meta.get("types", {}).get("detailed", "")) for question in balanced]
    facts = _facts(target, questions, balanced, given)
    return [Scoring(target.protocol, tuple(scores), _blind.blind_accuracy(answers, types), CHANCE, facts=facts)]


def _score(question: Question, text: str, given: str) -> QuestionScore:
    answer, types = str(question.meta["answer"]), question.meta.get("types", {})
    structural, semantic = types.get("structural"), types.get("semantic")
    names = [f"length/{len(question.text.split()):02d} words", f"steps/{_steps(question)}"]
    if structural:
        names = ["answer/open" if structural == "query" else "answer/binary", f"structural/{structural}", *names]
    if semantic:
        names.append(f"semantic/{_SEMANTIC.get(semantic, semantic)}")
    cluster = str(question.meta["imageId"])
    return QuestionScore(question.key, text, given, (answer,), float(given == answer), None, tuple(names), cluster)


def _steps(question: Question) -> int:
    """Reasoning steps, without the last one that only reads the answer off."""
    steps = [f"{step['operation']}: {step['argument']}" for step in question.meta.get("semantic", ())]
    return sum(not any(name in step for name in _ANSWERING_STEPS) for step in steps)


def _facts(
    target: Target, questions: Sequence[Question], balanced: Sequence[Question], given: Mapping[str, str]
) -> dict[str, float]:
    """What the official scorer prints besides accuracies, in its units."""
    facts: dict[str, float] = {}
    right = {question.key: given[question.key] == str(question.meta["answer"]) for question in questions}
    consistency = []
    for question in balanced:
        entailed = [key for key in question.meta.get("entailed", ()) if key != question.key and key in right]
        if right[question.key] and entailed:
            consistency.append(sum(right[key] for key in entailed) / len(entailed))
    if consistency:
        facts["consistency"] = 100 * sum(consistency) / len(consistency)
    choices = _choices(target)
    for name in ("valid", "plausible") if choices else ():
        held = [_belongs(given[q.key], choices.get(q.key, {}).get(name, ()), q) for q in balanced]
        facts["validity" if name == "valid" else "plausibility"] = 100 * sum(held) / len(held)
    distance = _distribution(balanced, given)
    if distance is not None:
        facts["distribution (lower is better)"] = distance
    return facts


def _choices(target: Target) -> Mapping[str, Any]:
    stem = question_file(target).stem
    split = stem.split("_")[0]
    folder = _files.task_folder(target)
    found = sorted([*folder.glob(f"{split}_choices.json"), *folder.glob(f"*/{split}_choices.json")])
    return _files.read_json(found[0]) if found else {}


def _belongs(answer: str, allowed: Sequence[str], question: Question) -> bool:
    is_common = "Common" in str(question.meta.get("types", {}).get("detailed", ""))
    return answer in (_COMMON if is_common else allowed)


def _distribution(balanced: Sequence[Question], given: Mapping[str, str]) -> float | None:
    """Chi-square distance of given to right answers within question groups, weighted by size, over 100."""
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for question in balanced:
        group = question.meta.get("groups", {}).get("global")
        if group is not None:
            gold[group][str(question.meta["answer"])] += 1
            said[group][given[question.key]] += 1
    sizes = {group: sum(counts.values()) for group, counts in gold.items()}
    if not sizes:
        return None
    distances = {g: sum((said[g][a] - n) ** 2 / n for a, n in counts.items()) for g, counts in gold.items()}
    return sum(distances[group] * size for group, size in sizes.items()) / sum(sizes.values()) / 100


def write_kit_files(
    folder: Path, target: Target, asked: Sequence[tuple[Question, str, str]], model_id: str
) -> list[str]:
    """Write ``SPLIT_predictions.json`` in the official scorer's form. Returns the file names."""
    rows = [{"questionId": question.key, "prediction": read_answer(answer)} for question, _, answer in asked]
    name = question_file(target).stem.replace("_questions", "") + "_predictions.json"
    write_atomic(folder / name, json.dumps(rows, ensure_ascii=False).encode())
    return [name]
