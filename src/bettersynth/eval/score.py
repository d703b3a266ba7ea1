"""Turn kept answers into scores; needs no model. What does not say where it comes from is refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.errors import DataError, ProvenanceError
from bettersynth.core.fingerprint import digest_bytes, digest_json
from bettersynth.core.lang import t
from bettersynth.core.record import EvalResult, Interval
from bettersynth.eval import predictions as store
from bettersynth.eval.intervals import RESAMPLES, bootstrap_interval, is_at_chance, scaled
from bettersynth.eval.predictions import Prediction
from bettersynth.eval.protocol import QuestionScore, Scoring, require_provenance, task_module
from bettersynth.eval.runner import Asked, ask, open_target

RESULTS = "results.json"
QUESTIONS = "questions.csv"
_COLUMNS = ("protocol", "question_id", "category", "prediction", "extracted", "answers", "score")


def score(
    predictions: Path,
    data: Path,
    out: Path | None = None,
    *,
    checkpoint: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Artifact:
    """Score a predictions folder under every scoring protocol of its task.

    Writes ``results.json`` (one EvalResult per scoring protocol) and ``questions.csv`` (one line per question and
    protocol) to ``out``, by default ``PREDICTIONS/scores``.

    Args:
        data: the evaluation folder or question file the answers were made from.
        checkpoint: digest that the answers must come from, when the caller knows it.
        resamples, seed: of the bootstrap over questions.

    Raises:
        ProvenanceError: a line without provenance, another checkpoint than asked for, or other questions, prompts or
            pictures in ``data`` than those the model saw.
        DataError: no finished predictions, or no reference answers.
    """
    artifact, lines = store.load(predictions)
    target = open_target(str(artifact.facts["protocol"]), data)
    asked = ask(target, artifact.facts.get("limit"))
    _check(artifact, lines, asked, checkpoint)
    answers = {line.key: line.text for line in lines}
    scorings: list[Scoring] = task_module(target.task).evaluate(target, asked.questions, answers)
    stamp = {
        "checkpoint": str(artifact.parents["checkpoint"]),
        "prompt": digest_json([line.provenance["prompt"] for line in lines]),
        "decoding": lines[0].provenance["decoding"],
        "protocol": target.protocol,
        "data": asked.digest,
        "predictions": artifact.digest,
    }
    if artifact.facts.get("limit"):
        stamp["limit"] = str(artifact.facts["limit"])  # beside the score wherever it is shown
    results = [_result(target.task, scoring, stamp, (resamples, seed)) for scoring in scorings]
    folder = out or predictions / "scores"
    unscored = {
        scoring.protocol: {reason: list(keys) for reason, keys in scoring.unscored.items()} for scoring in scorings
    }
    document = {"results": [asdict(result) for result in results], "unscored": unscored}
    write_atomic(folder / RESULTS, json.dumps(document, indent=1, ensure_ascii=False).encode())
    write_atomic(folder / QUESTIONS, _table(scorings).encode())
    facts: dict[str, Any] = {"task": target.task, "protocol": target.protocol, "resamples": resamples, "seed": seed}
    facts["num_unscored"] = {name: sum(map(len, reasons.values())) for name, reasons in unscored.items()}
    parents = {"predictions": artifact.digest, "checkpoint": stamp["checkpoint"]}
    return write_manifest(folder, kind="scores", facts=facts, files=[RESULTS, QUESTIONS], parents=parents)


def _check(artifact: Artifact, lines: Sequence[Prediction], asked: Asked, checkpoint: str | None) -> None:
    """Compare what the answers say of themselves with the manifest, the questions, and what the caller expects."""
    made_by = artifact.parents.get("checkpoint", "")
    where = str(artifact.folder)
    if checkpoint is not None and checkpoint != made_by:
        raise ProvenanceError(
            t("the answers come from another checkpoint"), where=where, got=made_by, expected=checkpoint
        )
    if [line.key for line in lines] != [question.key for question in asked.questions]:
        raise ProvenanceError(
            t("the answers are to other questions"),
            where=where,
            got=t("{n} answers", n=len(lines)),
            expected=t("{n} answers", n=len(asked.questions)),
            hint=t("give the evaluation folder the answers were made from"),
        )
    wanted = {"checkpoint": made_by, "protocol": asked.target.protocol, "data": asked.digest}
    wanted["decoding"] = str(artifact.facts.get("decoding_digest"))
    for number, line in enumerate(lines, 1):
        expected = wanted | {"prompt": digest_bytes(asked.prompts[line.key].encode())}
        wrong = [name for name, value in expected.items() if line.provenance[name] != value]
        if wrong:
            raise ProvenanceError(
                t("the provenance of an answer does not match"),
                where=f"{artifact.folder / store.FILE}:{number}",
                got=f"{wrong[0]} {line.provenance[wrong[0]]}",
                expected=f"{wrong[0]} {expected[wrong[0]]}",
                hint=t("give the evaluation folder the answers were made from, or make them again"),
            )


def _result(task: str, scoring: Scoring, stamp: Mapping[str, str], bootstrap: tuple[int, int]) -> EvalResult:
    questions = scoring.questions
    if not questions:
        raise DataError(t("no question could be scored"), where=scoring.protocol)
    resamples, seed = bootstrap
    clusters = [question.cluster or question.question_id for question in questions]
    weights = [question.weight for question in questions] if scoring.is_ratio else None
    interval = bootstrap_interval(
        [question.score for question in questions], clusters=clusters, weights=weights, resamples=resamples, seed=seed
    )
    by_category: dict[str, list[QuestionScore]] = {}
    for question in questions:
        for name in question.categories:
            by_category.setdefault(name, []).append(question)
    return EvalResult(
        task,
        scoring.protocol,
        scaled(interval, 100),
        len(questions),
        100 * scoring.chance,
        scoring.chance_method,
        is_at_chance(interval, scoring.chance),
        {name: (100 * _mean(by_category[name]), len(by_category[name])) for name in sorted(by_category)},
        dict(stamp),
        facts=dict(scoring.facts),
    )


def _mean(questions: Sequence[QuestionScore]) -> float:
    total = sum(question.weight for question in questions)
    return sum(question.score * question.weight for question in questions) / total if total else 0.0


def _table(scorings: Sequence[Scoring]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for scoring in scorings:
        for question in scoring.questions if not scoring.is_ratio else ():
            answers = " | ".join(question.answers)
            categories = " ".join(question.categories)
            cells = (question.prediction, question.extracted, answers, repr(question.score))
            writer.writerow((scoring.protocol, question.question_id, categories, *cells))
    return stream.getvalue()


def load_results(folder: Path) -> list[EvalResult]:
    """The scores of a folder, checked: finished, unchanged, and every one with its provenance.

    Raises:
        DataError: no finished scores here.
        ProvenanceError: changed files, or a score that does not say where it comes from.
    """
    artifact = Artifact.load(folder, kind="scores")
    changed = artifact.verify()
    if changed:
        raise ProvenanceError(
            t("scores were changed after they were computed"),
            where=str(folder),
            got=", ".join(changed),
            hint=f"bettersynth score {folder.parent}",
        )
    _check_answers(folder, artifact)
    document = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    return [require_provenance(parse_result(raw)) for raw in document["results"]]


def _check_answers(folder: Path, scores: Artifact) -> None:
    """Raise ProvenanceError when the answers beside the scores are not those that were scored, as they were."""
    above = folder.resolve().parent
    if not Artifact.exists(above):
        return  # scores that stand elsewhere
    answers = Artifact.load(above)
    if answers.kind != "predictions":
        return
    changed = answers.verify()
    if changed:
        raise ProvenanceError(
            t("files were changed after the answers were made"),
            where=str(folder.parent),
            got=", ".join(changed),
            hint=t("make them again from the checkpoint with: bettersynth eval"),
        )
    if answers.digest != scores.parents.get("predictions"):
        raise ProvenanceError(
            t("these scores belong to other answers"), where=str(folder), hint=f"bettersynth score {folder.parent}"
        )


def parse_result(raw: Mapping[str, Any]) -> EvalResult:
    """An EvalResult from its JSON object."""
    fields = dict(raw)
    fields["score"] = Interval(**fields["score"])
    fields["by_category"] = {name: (float(mean), int(count)) for name, (mean, count) in raw["by_category"].items()}
    fields["per_seed"] = tuple(raw.get("per_seed", ()))
    return EvalResult(**fields)


def load_question_scores(folder: Path) -> dict[str, dict[str, float]]:
    """Scoring protocol to question id to score in 0-1, from a scores folder."""
    Artifact.load(folder, kind="scores")
    with (folder / QUESTIONS).open(encoding="utf-8", newline="") as stream:
        table: dict[str, dict[str, float]] = {}
        for row in csv.DictReader(stream):
            table.setdefault(row["protocol"], {})[row["question_id"]] = float(row["score"])
    return table
