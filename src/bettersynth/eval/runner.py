"""Ask a model every question of a benchmark and keep the answers; running the same call again continues it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bettersynth.core.artifact import MANIFEST, Artifact, write_manifest
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.eval import predictions as store
from bettersynth.eval.predictions import Prediction, PredictionLog
from bettersynth.eval.protocol import Question, Target, resolve, task_module
from bettersynth.infer.protocols import ChatModel, ChatRequest, Decoding

Progress = Callable[[int, int], None]
"""Called with (answered, total) after every batch."""


@dataclass(frozen=True)
class Asked:
    """The questions of one prompt protocol, ready to be asked.

    Args:
        prompts: question key to prompt.
        digest: digest of keys, prompts and pictures.
    """

    target: Target
    questions: tuple[Question, ...]
    prompts: Mapping[str, str]
    digest: str


def open_target(task: str, data: Path) -> Target:
    """Where the questions of a prompt protocol are.

    Args:
        task: a prompt protocol, e.g. ``textvqa-noocr`` or ``mmbench``.
        data: the evaluation folder; or one question file, which names the split; or FOLDER/TASK/SPLIT for benchmarks
            whose files hold several splits.

    Raises:
        ConfigError: unknown name, or one that stands for several protocols.
    """
    pairs = resolve([task])
    if len(pairs) != 1:
        raise ConfigError(
            t("'{name}' stands for several protocols", name=task), expected=" | ".join(name for _, name in pairs)
        )
    name, protocol = pairs[0]
    if data.is_file() or (data.parent.name == name and data.parent.is_dir() and not data.exists()):
        return Target(name, protocol, data.parent, data.stem)
    return Target(name, protocol, data)


def ask(target: Target, limit: int | None = None) -> Asked:
    """Read the questions and build their prompts; ``limit`` keeps the first so many units with all their rotations."""
    module = task_module(target.task)
    questions: list[Question] = module.samples(target)
    if limit is not None:
        kept = set(list(dict.fromkeys(q.unit for q in questions))[:limit])
        questions = [question for question in questions if question.unit in kept]
    if not questions:
        raise DataError(t("no questions to ask"), where=str(target.folder), got=target.protocol)
    prompts = {question.key: str(module.prompt(question, target.protocol)) for question in questions}
    if len(prompts) != len(questions):
        raise DataError(t("two questions have the same key"), where=str(target.folder), got=target.protocol)
    return Asked(target, tuple(questions), prompts, store.data_digest(questions, prompts))


def plan_batches(asked: Asked, batch_size: int) -> list[list[Question]]:
    """Questions in batches of similar prompt length; rotations of a question, which share a picture, side by side.

    The batches depend on the questions and the batch size alone, so a continued run computes exactly what an
    uninterrupted one does.
    """
    longest: dict[str, int] = {}
    for question in asked.questions:
        longest[question.unit] = max(longest.get(question.unit, 0), len(asked.prompts[question.key]))
    ordered = sorted(asked.questions, key=lambda q: (longest[q.unit], q.image_digest, q.unit, q.key))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def generate(
    task: str,
    model: ChatModel,
    data: Path,
    out: Path,
    *,
    decoding: Decoding | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
    limit: int | None = None,
) -> Artifact:
    """Ask every question and write a predictions artifact; answered batches are not asked again.

    ``out`` gets ``predictions.jsonl`` (every line with its provenance), the kit's own form (``answers.jsonl`` for
    TextVQA, ``SPLIT.xlsx`` for MMBench) and the manifest. A folder that already holds the same answers is returned as
    it is; answers of another checkpoint, prompt or decoding are replaced.

    Args:
        task: prompt protocol, e.g. ``textvqa-noocr``, ``mmbench``.
        model: what answers; its ``digest`` becomes the predictions' checkpoint.
        data: evaluation folder (``toolkit/eval`` of a kit) or one question file.
        out: ``eval_results/NAME/PROTOCOL``; NAME becomes the ``model_id`` of the kit's files.
        decoding: greedy with the task's own number of new tokens when None.
        batch_size: questions per call of the model.
        limit: ask only the first so many questions (each with all its rotations).

    Raises:
        DataError: questions or pictures are missing or damaged, or ``out`` cannot be written.
    """
    target = open_target(task, data)
    asked = ask(target, limit)
    decoding = decoding or Decoding(task_module(target.task).MAX_NEW_TOKENS)
    stamps = _stamps(asked, model.digest, decoding)
    identity: dict[str, object] = {"task": target.task, "protocol": target.protocol, "checkpoint": model.digest}
    identity |= {"data": asked.digest, "limit": limit, "num_questions": len(asked.questions)}
    identity |= {"decoding": asdict(decoding)}
    log = PredictionLog(out)
    finished = _finished(out, identity)
    if finished is not None:
        log.remove()
        return finished
    if Artifact.exists(out):
        (out / MANIFEST).unlink()
    with Meter("generate") as meter:
        answers = _answer(asked, model, decoding, log, (stamps, batch_size, progress))
    ordered = [answers[question.key] for question in asked.questions]
    store.write_all(out, ordered)
    module = task_module(target.task)
    triples = [(q, p.prompt, p.text) for q, p in zip(asked.questions, ordered, strict=True)]
    names = module.write_kit_files(out, target, triples, out.absolute().parent.name)
    facts = identity | {"num_cut": sum(p.finish == "length" for p in ordered), "decoding_digest": decoding.digest()}
    run = {"cost": asdict(meter.cost), "batch_size": batch_size, "ended": round(time.time())}
    parents = {"checkpoint": model.digest}
    artifact = write_manifest(
        out, kind="predictions", facts=facts, files=[store.FILE, *names], parents=parents, run=run
    )
    log.remove()
    return artifact


def _stamps(asked: Asked, checkpoint: str, decoding: Decoding) -> dict[str, dict[str, str]]:
    """The provenance of every answer, by question key."""
    shared = {"checkpoint": checkpoint, "decoding": decoding.digest(), "protocol": asked.target.protocol}
    shared["data"] = asked.digest
    return {key: shared | {"prompt": digest_bytes(text.encode())} for key, text in asked.prompts.items()}


def _finished(out: Path, identity: Mapping[str, object]) -> Artifact | None:
    if not Artifact.exists(out):
        return None
    artifact = Artifact.load(out, kind="predictions")
    is_same = all(artifact.facts.get(name) == value for name, value in identity.items())
    return artifact if is_same and not artifact.verify() else None


def _answer(
    asked: Asked,
    model: ChatModel,
    decoding: Decoding,
    log: PredictionLog,
    how: tuple[Mapping[str, Mapping[str, str]], int, Progress | None],
) -> dict[str, Prediction]:
    stamps, batch_size, progress = how
    done = log.read(stamps)
    total = len(asked.questions)
    for batch in plan_batches(asked, batch_size):
        # A batch is asked whole or not at all: its members' answers then never depend on where a run was cut.
        if not all(question.key in done for question in batch):
            predictions = _ask_batch(asked, model, decoding, batch, stamps)
            log.append(predictions)
            done.update({prediction.key: prediction for prediction in predictions})
        if progress is not None:
            progress(sum(question.key in done for question in asked.questions), total)
    return done


def _ask_batch(
    asked: Asked,
    model: ChatModel,
    decoding: Decoding,
    batch: Sequence[Question],
    stamps: Mapping[str, Mapping[str, str]],
) -> list[Prediction]:
    choices = getattr(task_module(asked.target.task), "choices", None)
    requests = [
        ChatRequest(
            q.key, asked.prompts[q.key], q.image, choices(q, asked.target.protocol) if choices is not None else ()
        )
        for q in batch
    ]
    responses = model.generate(requests, decoding)
    if [response.key for response in responses] != [question.key for question in batch]:
        raise BetterSynthError(
            t("the model did not answer every question of a batch in order"),
            where=type(model).__name__,
            got=t("{n} answers", n=len(responses)),
            expected=t("{n} answers", n=len(batch)),
        )
    return [
        Prediction(q.key, q.question_id, asked.prompts[q.key], r.text, tuple(r.token_ids), r.finish, stamps[q.key])
        for q, r in zip(batch, responses, strict=True)
    ]
