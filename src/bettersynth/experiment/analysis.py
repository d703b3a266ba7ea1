"""Where scores come from: categories of one model, and what changed, question by question, between two."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.record import EvalResult, Interval
from bettersynth.eval.intervals import scaled
from bettersynth.eval.score import QUESTIONS, load_results
from bettersynth.experiment import stats

_CATEGORIES = re.compile(r" (?=[a-z0-9_]+/)")
"""Between categories in the table of questions: their names (``l2/logic reasoning``) may hold spaces."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How one question fared: the answer as given and as read, what was expected, and its score in 0-1."""

    question_id: str
    category: str
    prediction: str
    extracted: str
    answers: str
    score: float


@dataclass(frozen=True, slots=True)
class Change:
    """A question that two models answered with different scores."""

    question_id: str
    category: str
    answers: str
    before: str
    after: str
    difference: float


@dataclass(frozen=True)
class Changes:
    """Two models under one scoring protocol, in percent; ``difference`` is b - a with its paired interval."""

    protocol: str
    num_questions: int
    difference: Interval
    p_value: float
    fixed: tuple[Change, ...]
    broken: tuple[Change, ...]
    by_category: Mapping[str, tuple[float, float, int]]

    @property
    def is_tie(self) -> bool:
        """True when the interval holds zero."""
        return self.difference.low <= 0 <= self.difference.high


def scores_folders(path: Path) -> list[Path]:
    """The scores folders at or below a path: a scores folder, a predictions folder, or all of a model's.

    Raises:
        DataError: there is none.
    """
    if not path.is_dir():
        raise DataError(t("no such folder"), where=str(path))
    inside = sorted(file.parent for file in path.rglob("manifest.json") if file.parent.name == "scores")
    found = [folder for folder in [path, *inside] if _is_scores(folder)]
    if not found:
        raise DataError(
            t("no scores here"),
            where=str(path),
            expected=t("eval_results/NAME, or one of its folders"),
            hint=t("make them with: bettersynth eval, or bettersynth score"),
        )
    return list(dict.fromkeys(found))


def _is_scores(folder: Path) -> bool:
    return Artifact.exists(folder) and Artifact.load(folder).kind == "scores"


def results(path: Path) -> list[EvalResult]:
    """All scores at or below a path, with provenance.

    Raises:
        DataError, ProvenanceError: none there, changed files, or a score that does not say where it comes from.
    """
    return [result for folder in scores_folders(path) for result in load_results(folder)]


def answered(path: Path) -> dict[str, dict[str, Answered]]:
    """Scoring protocol to question id to how it fared."""
    table: dict[str, dict[str, Answered]] = {}
    for folder in scores_folders(path):
        with (folder / QUESTIONS).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                one = Answered(
                    row["question_id"],
                    row["category"],
                    row["prediction"],
                    row["extracted"],
                    row["answers"],
                    float(row["score"]),
                )
                table.setdefault(row["protocol"], {})[one.question_id] = one
    return table


def changes(a: Path, b: Path, *, resamples: int = stats.RESAMPLES) -> list[Changes]:
    """What is different in b, per scoring protocol that both have.

    Raises:
        DataError: no protocol in common, or other questions.
    """
    before, after = answered(a), answered(b)
    common = [protocol for protocol in before if protocol in after]
    if not common:
        raise DataError(
            t("the two have no protocol in common"), got=f"{', '.join(before)} | {', '.join(after)}", where=str(b)
        )
    return [_changes(protocol, before[protocol], after[protocol], resamples) for protocol in common]


def _changes(protocol: str, before: Mapping[str, Answered], after: Mapping[str, Answered], resamples: int) -> Changes:
    if sorted(before) != sorted(after):
        only = len(set(before) ^ set(after))
        raise DataError(t("the two were not asked the same questions"), where=protocol, got=t("{n} differ", n=only))
    ids = sorted(before)
    first, second = [before[key].score for key in ids], [after[key].score for key in ids]
    found = stats.paired_difference(first, second, resamples=resamples)
    moved = sorted(
        (_change(before[key], after[key]) for key in ids if before[key].score != after[key].score),
        key=lambda change: (-abs(change.difference), change.question_id),
    )
    return Changes(
        protocol,
        len(ids),
        scaled(found.interval, 100),
        found.p_value,
        tuple(change for change in moved if change.difference > 0),
        tuple(change for change in moved if change.difference < 0),
        _categories([before[key] for key in ids], [after[key] for key in ids]),
    )


def _change(before: Answered, after: Answered) -> Change:
    return Change(
        before.question_id,
        before.category,
        before.answers,
        before.prediction,
        after.prediction,
        round(after.score - before.score, 6),
    )


def _categories(before: Sequence[Answered], after: Sequence[Answered]) -> dict[str, tuple[float, float, int]]:
    """Category to percent before, percent after, number of questions; a question may be in several."""
    sums: dict[str, list[float]] = {}
    for x, y in zip(before, after, strict=True):
        for name in _CATEGORIES.split(x.category) if x.category else ():
            total = sums.setdefault(name, [0.0, 0.0, 0.0])
            total[0], total[1], total[2] = total[0] + x.score, total[1] + y.score, total[2] + 1
    return {name: (100 * a / n, 100 * b / n, int(n)) for name, (a, b, n) in sorted(sums.items())}
