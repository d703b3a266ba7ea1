"""POPE: is an object in the picture, yes or no; random, popular and adversarial questions about absent objects.

Official files: ``coco_pope_{random,popular,adversarial}.json``, one object a line, in the task's folder or in ``coco``,
and the pictures of COCO val2014. ``pope`` adds the usual instruction line, ``pope@bare`` asks the question alone. Two
scores: ``pope`` is accuracy, ``pope-f1`` the F1 of "yes"; precision, recall and the share of yes stand beside them.
"""

from __future__ import annotations

import json
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
    "pope": "the question, 'Answer the question using a single word or phrase.'",
    "pope@bare": "the question alone, as the benchmark's authors ask it",
}
METRICS = ("yes_no_accuracy",)
CHANCE = "the better of always yes and always no"
CHANCE_F1 = "always yes"
MAX_NEW_TOKENS = 128

KINDS = ("random", "popular", "adversarial")
_PREFIX = "coco_pope_"
_INSTRUCTION = "\nAnswer the question using a single word or phrase."
_NEGATIVE = frozenset(("No", "no", "not"))


def question_files(target: Target) -> dict[str, Path]:
    """Kind of question to its file: all three, or the split's one."""
    folder = _files.task_folder(target)
    names = [target.split] if target.split else [_PREFIX + kind for kind in KINDS]
    found = {}
    for name in names:
        for place in (folder / f"{name}.json", folder / "coco" / f"{name}.json"):
            if place.is_file():
                found[name.removeprefix(_PREFIX)] = place
                break
    if not found:
        _files.find_one(folder, [f"{name}.json" for name in names], what=t("POPE question file"))
    return found


def samples(target: Target) -> list[Question]:
    """The questions, file by file.

    Raises:
        DataError: no question file, a damaged line, a label that is neither yes nor no, or missing pictures.
    """
    folder = _files.task_folder(target)
    rows: list[tuple[str, Path, dict[str, Any]]] = []
    for kind, path in question_files(target).items():
        for row in _files.read_jsonl(path, fields=("question_id", "image", "text", "label")):
            if row["label"] not in ("yes", "no"):
                raise DataError(t("a label is neither yes nor no"), where=str(path), got=str(row["label"]))
            rows.append((kind, path, row))
    images = _files.find_images(
        folder, [str(row["image"]) for _, _, row in rows], ("val2014", "images", "coco/val2014")
    )
    digests = {name: digest_file(image) for name, image in images.items()}
    questions = []
    for kind, _, row in rows:
        key, name = f"{kind}/{row['question_id']}", str(row["image"])
        meta = {"label": row["label"], "image": name}
        image = ImageRef(str(images[name]))
        questions.append(Question(key, str(row["question_id"]), row["text"], image, digests[name], key, kind, meta))
    return questions


def prompt(question: Question, protocol: str) -> str:
    """What the model is asked, without the image marker and the conversation template."""
    return question.text if protocol.endswith("@bare") else question.text + _INSTRUCTION


def read_answer(text: str) -> str:
    """``yes`` or ``no``: the first sentence says no when one of its words is a negation, and yes in every other case.

    Source: evaluation of the POPE repository (and LLaVA's copy of it); an empty answer counts as yes there.

    >>> [read_answer(text) for text in ("No.", "There is not, sorry", "yes, but no", "Nope", "Yes. No.")]
    ['no', 'no', 'no', 'yes', 'yes']
    """
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if _NEGATIVE & set(words) else "yes"


def evaluate(target: Target, questions: Sequence[Question], predictions: Mapping[str, str]) -> list[Scoring]:
    """Accuracy and F1, with what the benchmark's scorer prints beside them."""
    accuracy, ratio = [], []
    for question in questions:
        said, label = read_answer(predictions[question.key]), str(question.meta["label"])
        shared = (question.key, predictions[question.key], said, (label,))
        groups = (f"kind/{question.category}", f"label/{label}")
        cluster = str(question.meta["image"])
        accuracy.append(QuestionScore(*shared, float(said == label), 0.5, groups, cluster))
        # F1 = 2 TP / (2 TP + FP + FN): a mean of 1 for true positives and 0 for mistakes, with these weights.
        weight = 2.0 if said == label == "yes" else 0.0 if said == label else 1.0
        ratio.append(QuestionScore(*shared, float(weight == 2.0), None, groups[:1], cluster, weight))
    labels = [str(question.meta["label"]) for question in questions]
    share = labels.count("yes") / len(labels)
    suffix = f"@{target.variant}" if target.variant else ""
    facts = _facts(questions, accuracy)
    return [
        Scoring("pope" + suffix, tuple(accuracy), max(share, 1 - share), CHANCE, facts=facts),
        Scoring("pope-f1" + suffix, tuple(ratio), 2 * share / (1 + share), CHANCE_F1, is_ratio=True),
    ]


def _facts(questions: Sequence[Question], scores: Sequence[QuestionScore]) -> dict[str, float]:
    """Precision, recall, F1 and share of yes in percent, over everything and per kind."""
    facts: dict[str, float] = {}
    kinds = list(dict.fromkeys(question.category for question in questions))
    for kind in ("", *kinds) if len(kinds) > 1 else kinds:
        chosen = [s for q, s in zip(questions, scores, strict=True) if kind in ("", q.category)]
        said = [score.extracted == "yes" for score in chosen]
        real = [score.answers[0] == "yes" for score in chosen]
        both = sum(s and r for s, r in zip(said, real, strict=True))
        precision, recall = both / max(1, sum(said)), both / max(1, sum(real))
        f1 = 2 * both / max(1, sum(said) + sum(real))
        values = {"precision": precision, "recall": recall, "f1": f1, "yes_ratio": sum(said) / len(chosen)}
        facts |= {f"{kind}/{name}" if kind else name: 100 * value for name, value in values.items()}
    return facts


def write_kit_files(
    folder: Path, target: Target, asked: Sequence[tuple[Question, str, str]], model_id: str
) -> list[str]:
    """Write one ``coco_pope_KIND_answers.json`` per kind in the official scorer's form. Returns the file names."""
    lines: dict[str, list[str]] = {}
    for question, _, answer in asked:
        line = {"question": question.text, "answer": answer}
        lines.setdefault(question.category, []).append(json.dumps(line, ensure_ascii=False) + "\n")
    names = []
    for kind, found in lines.items():
        names.append(f"{_PREFIX}{kind}_answers.json")
        write_atomic(folder / names[-1], "".join(found).encode())
    return names
