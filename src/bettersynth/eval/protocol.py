"""The nouns of evaluation: what is asked (a prompt protocol) and how answers become scores (a scoring protocol).

Both have names that travel with every figure, because the same model has different scores under different protocols:
TextVQA with OCR hints and without them are two benchmarks, and MMBench's three counting rules differ by tens of points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from bettersynth.core.errors import ConfigError, ProvenanceError
from bettersynth.core.lang import t
from bettersynth.core.record import EvalResult
from bettersynth.core.registry import Registry, did_you_mean
from bettersynth.core.sample import ImageRef

TASKS = Registry("task", "bettersynth.eval.tasks", "bettersynth.tasks")
METRICS = Registry("metric", "bettersynth.eval.metrics", "bettersynth.metrics")

PROVENANCE_KEYS = ("checkpoint", "prompt", "decoding", "protocol", "data")
"""What every prediction and every score must say: digests of the weights, of the prompt (for a score: of all prompts),
of the decoding and of the questions, and the prompt protocol's name."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question as the benchmark's files hold it.

    Args:
        key: unique in the split; also the order key of files.
        question_id: the benchmark's own id, not always unique (TextVQA uses the picture's).
        text: the ready question text or the bare question, depending on the task.
        image: an absolute path, or the encoded picture.
        image_digest: digest of the picture's bytes.
        unit: what counts as one when scores are averaged: rotations of a question share it.
        category: finest category name, empty when there is none.
        meta: the task's own fields.
    """

    key: str
    question_id: str
    text: str
    image: ImageRef | bytes | None
    image_digest: str
    unit: str
    category: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """How one unit fared under one scoring protocol; ``score`` in 0-1, ``chance`` what blind guessing would expect.

    ``weight`` is 1 but for ratios over the whole set, such as F1: their value is the weighted mean of the scores.
    """

    question_id: str
    prediction: str
    extracted: str
    answers: tuple[str, ...]
    score: float
    chance: float | None = None
    categories: tuple[str, ...] = ()
    cluster: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Scoring:
    """All units under one scoring protocol, the chance level in 0-1, and what could not be scored, by reason.

    ``facts`` are further figures of the benchmark's own scorer. ``is_ratio``: the score is a ratio over the whole set,
    so that no single question has one, and it is not among the scores per question.
    """

    protocol: str
    questions: tuple[QuestionScore, ...]
    chance: float
    chance_method: str
    unscored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    is_ratio: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where a benchmark's questions are and how they are asked.

    Args:
        task: benchmark name, a file of ``eval/tasks``.
        protocol: prompt protocol, e.g. ``textvqa-noocr``; ``@kit`` or ``@cn`` behind it names a variant.
        folder: the evaluation folder (``toolkit/eval`` of a kit) or the task's own folder in it.
        split: file stem of the questions when there are several; empty: the only one there.
    """

    task: str
    protocol: str
    folder: Path
    split: str = ""

    @property
    def variant(self) -> str:
        """What stands behind ``@`` in the protocol's name."""
        return self.protocol.partition("@")[2]


def task_module(name: str) -> ModuleType:
    """The module of a benchmark.

    It defines ``PROMPTS`` (prompt protocol to description), ``METRICS``, ``CHANCE``, ``MAX_NEW_TOKENS``,
    ``samples(target)``, ``prompt(question, protocol)``, ``evaluate(target, questions, predictions)`` and
    ``write_kit_files(folder, target, asked, model_id)``; perhaps ``bare_question(question)``, the question without its
    hints and instructions, and ``choices(question, protocol)``, the words that may be answered.
    """
    module: ModuleType = TASKS.module(name)
    return module


def resolve(names: Sequence[str]) -> list[tuple[str, str]]:
    """(task, prompt protocol) pairs for names a user writes; a bare task name means all its prompt protocols.

    Raises:
        ConfigError: unknown task or protocol, with the nearest name.

    >>> resolve(["textvqa-noocr", "mmbench"])
    [('textvqa', 'textvqa-noocr'), ('mmbench', 'mmbench')]
    """
    pairs: dict[tuple[str, str], None] = {}
    for name in names:
        for pair in _resolve_one(name):
            pairs[pair] = None
    return list(pairs)


def _resolve_one(name: str) -> list[tuple[str, str]]:
    task = name.partition("@")[0].partition("-")[0]
    if task not in TASKS:
        raise ConfigError(
            t("unknown {kind} '{name}'", kind="task", name=name),
            expected=", ".join(known_protocols()),
            hint=did_you_mean(name, known_protocols()),
        )
    prompts: Mapping[str, str] = task_module(task).PROMPTS
    if name in prompts:
        return [(task, name)]
    if name == task:
        return [(task, protocol) for protocol in prompts if "@" not in protocol]
    raise ConfigError(
        t("unknown protocol '{name}'", name=name), expected=", ".join(prompts), hint=did_you_mean(name, prompts)
    )


def known_protocols() -> list[str]:
    """Names of all prompt protocols of all tasks, variants included."""
    return [protocol for task in TASKS.names() for protocol in task_module(task).PROMPTS]


def require_provenance(result: EvalResult) -> EvalResult:
    """Return the score when it says where it comes from; anything that prints or packs scores calls this first.

    Raises:
        ProvenanceError: a key of :data:`PROVENANCE_KEYS` or the predictions' digest is absent or empty.
    """
    missing = [key for key in (*PROVENANCE_KEYS, "predictions") if not result.provenance.get(key)]
    if missing:
        raise ProvenanceError(
            t("a score without provenance is not printed"),
            where=result.protocol,
            got=t("no {keys}", keys=", ".join(missing)),
            expected=t("digests of checkpoint, prompts, decoding, questions and predictions"),
            hint=t("make it again from the checkpoint with: bettersynth eval"),
        )
    return result
