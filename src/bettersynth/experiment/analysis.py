"""Where scores come from, and what is different between two models or two conditions, question by question.

Every difference is paired over the same questions (and seeds), clusters of questions on one picture kept together;
groups of one kind share Holm's correction, so that among many groups some do not stand out by chance alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bettersynth.core.analysis import Agreement, Analysis, ChangedQuestion, Group, ProtocolAnalysis
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t
from bettersynth.core.record import EvalResult, Interval
from bettersynth.core.sample import ImageRef
from bettersynth.eval.error_types import FREE_ERRORS, OPTION_ERRORS, RIGHT, free_error, option_error
from bettersynth.eval.intervals import scaled, wilson
from bettersynth.eval.question_types import ANSWER_KINDS, ANSWER_LENGTHS, answer_kind, answer_length, question_type
from bettersynth.experiment import stats
from bettersynth.experiment.agreement import agreement
from bettersynth.experiment.answers import SEPARATOR, Answered, Facts, Side, answered, letters_of, question_facts
from bettersynth.experiment.answers import results as results
from bettersynth.experiment.answers import scores_folders as scores_folders

KINDS = ("category", "question type", "answer length", "answer kind")
MIN_QUESTIONS = 2
"""Groups of a single question are left out: a group is there to be generalised from."""
MAX_PICTURES = 24
"""Per direction; as many as a gallery of a page shows."""
Table = Mapping[str, Sequence[Answered]]
"""Question id to how it fared, one entry per seed."""
_How = tuple[bool, int, Path | None]
"""Whether seeds are paired, resamples, folder for pictures."""


@dataclass(frozen=True)
class _Questions:
    """The questions of one protocol in order, with their groups and clusters."""

    ids: tuple[str, ...]
    groups: Mapping[str, Sequence[Sequence[str]]]
    clusters: tuple[str, ...]
    facts: Mapping[str, Facts]


def analyse(
    a: Side,
    b: Side | None = None,
    *,
    data: Path | None = None,
    protocol: str | None = None,
    pictures: Path | None = None,
    resamples: int = stats.RESAMPLES,
) -> Analysis:
    """One or two models by category, question type, answer length and kind, with errors, and what changed between them.

    Args:
        data: evaluation folder the answers were made from; without it there are no question types and no pictures.
        protocol: only this scoring protocol.
        pictures: folder for pictures that lie inside question files, of the questions that changed most.

    Raises:
        DataError, ProvenanceError: no scores, scores without provenance, no protocol in common, or other questions.
        ConfigError: the protocol is not among the scores.
    """
    first, second = _tables(a), _tables(b) if b is not None else {}
    chances, digests = _checked(a, b)
    common = [name for name in first if b is None or name in second]
    if not common:
        raise DataError(t("the two have no protocol in common"), got=f"{', '.join(first)} | {', '.join(second)}")
    if protocol is not None and protocol not in common:
        raise ConfigError(t("unknown protocol '{name}'", name=protocol), expected=", ".join(common))
    facts = question_facts(next(iter(a.folders.values())), data)
    is_paired = b is None or list(a.folders) == list(b.folders)
    found = []
    for name in common:
        if protocol in (None, name):
            questions = _questions(name, first[name], second.get(name), facts.get(name, {}))
            one = _Comparer(questions, first[name], second.get(name), (is_paired, resamples, pictures))
            found.append(one.protocol(name, chances.get(name, 0.0)))
    seeds = (len(a.folders), len(b.folders) if b is not None else 0)
    return Analysis(a.name, tuple(found), b.name if b is not None else "", seeds, is_paired, digests=digests)


def _tables(side: Side) -> dict[str, dict[str, list[Answered]]]:
    """Protocol to question id to one answer per seed; every seed must have been asked the same questions."""
    tables: dict[str, dict[str, list[Answered]]] = {}
    for seed, folder in side.folders.items():
        for protocol, rows in answered(folder).items():
            table = tables.setdefault(protocol, {})
            for key, one in rows.items():
                table.setdefault(key, []).append(one)
            if any(len(table[key]) != len(next(iter(table.values()))) for key in rows) or len(rows) != len(table):
                raise DataError(
                    t("the two were not asked the same questions"), where=f"{protocol}: {side.name} {seed}".strip()
                )
    return tables


def _checked(*sides: Side | None) -> tuple[dict[str, float], dict[str, str]]:
    """Chance level per protocol, and digests of the answers; scores without provenance are refused."""
    chances: dict[str, float] = {}
    digests: dict[str, str] = {}
    for side in sides:
        for seed, folder in side.folders.items() if side is not None else ():
            found: list[EvalResult] = results(folder)
            for result in found:
                chances[result.protocol] = result.chance
                label = f"{side.name}{'-' if seed else ''}{seed} {result.protocol}" if side is not None else ""
                digests[label] = str(result.provenance["predictions"])
    return chances, digests


def _questions(name: str, first: Table, second: Table | None, facts: Mapping[str, Facts]) -> _Questions:
    if second is not None and sorted(first) != sorted(second):
        only = len(set(first) ^ set(second))
        raise DataError(
            t("the two were not asked the same questions"),
            where=name,
            got=t("{n} differ", n=only),
            expected=t("the same --split, --limit and questions on both sides"),
            hint=t("ask one of them again: bettersynth eval {task} --checkpoint DIR", task=name.partition("-")[0]),
        )
    ids = tuple(sorted(first))
    known = facts if all(key in facts for key in ids) else {}
    groups: dict[str, list[Sequence[str]]] = {"category": [first[key][0].categories for key in ids]}
    if known:
        groups["question type"] = [[question_type(known[key].text)] for key in ids]
        groups["answer length"] = [[answer_length(known[key].expected)] for key in ids]
        groups["answer kind"] = [[answer_kind(known[key].expected)] for key in ids]
    # Question ids of TextVQA are picture ids, numbered when there are several questions on one picture.
    clusters = tuple(known[key].cluster if known else key.partition("#")[0] for key in ids)
    return _Questions(ids, groups, clusters, known)


class _Comparer:
    """All tables of one protocol."""

    def __init__(self, questions: _Questions, first: Table, second: Table | None, how: _How) -> None:
        self.questions, self.first, self.second = questions, first, second
        self.is_paired, self.resamples, self.pictures = how

    def protocol(self, name: str, chance: float) -> ProtocolAnalysis:
        scores_a, scores_b = self._scores(self.first), self._scores(self.second) if self.second else None
        columns = list(range(len(self.questions.ids)))
        whole, p_value = self._group("", name, scores_a, scores_b, columns)
        errors_a = self._errors(self.first)
        errors_b = self._errors(self.second) if self.second else None
        fixed, broken = self._changes(scores_a, scores_b, errors_a, errors_b)
        return ProtocolAnalysis(
            name,
            len(columns),
            whole.a,
            chance,
            whole.b,
            whole.difference,
            p_value,
            _verdict(whole, p_value, chance),
            tuple(group for kind in KINDS for group in self._groups(kind, scores_a, scores_b)),
            tuple(self._error_groups(errors_a, errors_b)),
            fixed,
            broken,
            self._agreement(scores_a, scores_b),
            () if self.questions.facts else ("no question files",),
        )

    def _scores(self, table: Table) -> stats.Matrix:
        return np.array([[one.score for one in table[key]] for key in self.questions.ids]).T

    def _group(
        self, kind: str, name: str, a: stats.Matrix, b: stats.Matrix | None, columns: Sequence[int]
    ) -> tuple[Group, float]:
        """One group and its uncorrected p-value (1 for a single model)."""
        clusters = [self.questions.clusters[column] for column in columns]
        first = stats.cluster_columns(a[:, columns], clusters)
        mean_a = _mean(first, float(a[:, columns].mean()), self.resamples)
        if b is None:
            return Group(kind, name, len(columns), mean_a), 1.0
        second = stats.cluster_columns(b[:, columns], clusters)
        mean_b = _mean(second, float(b[:, columns].mean()), self.resamples)
        difference, p_value = _difference(first, second, self.is_paired, self.resamples)
        return Group(kind, name, len(columns), mean_a, mean_b, difference), p_value

    def _groups(self, kind: str, a: stats.Matrix, b: stats.Matrix | None) -> list[Group]:
        members: dict[str, list[int]] = {}
        for column, names in enumerate(self.questions.groups.get(kind, ())):
            for name in names:
                members.setdefault(name, []).append(column)
        fixed_order = {"answer length": ANSWER_LENGTHS, "answer kind": ANSWER_KINDS}.get(kind)
        if fixed_order:
            names = [name for name in fixed_order if name in members]
        else:
            names = sorted(members, key=lambda name: (name.partition("/")[0], -len(members[name]), name))
        return self._corrected(
            [self._group(kind, name, a, b, members[name]) for name in names if len(members[name]) >= MIN_QUESTIONS]
        )

    def _corrected(self, groups: Sequence[tuple[Group, float]]) -> list[Group]:
        if self.second is None:
            return [group for group, _ in groups]
        adjusted = stats.holm({group.name: p_value for group, p_value in groups})
        return [Group(g.kind, g.name, g.num_questions, g.a, g.b, g.difference, adjusted[g.name]) for g, _ in groups]

    # -- errors ------------------------------------------------------------------------------------------------------

    def _errors(self, table: Table) -> list[list[str]]:
        """The name of the error (or ``right``) per question and seed."""
        return [[_error(one, self.questions.facts.get(key)) for one in table[key]] for key in self.questions.ids]

    def _error_groups(self, a: Sequence[Sequence[str]], b: Sequence[Sequence[str]] | None) -> list[Group]:
        seen = {name for rows in (a, b or ()) for row in rows for name in row}
        order = [name for name in dict.fromkeys((*FREE_ERRORS, *OPTION_ERRORS)) if name in seen]
        everything = list(range(len(self.questions.ids)))
        found = [
            self._group("error", name, _share(a, name), _share(b, name) if b is not None else None, everything)
            for name in order
        ]
        return self._corrected(found)

    # -- two models --------------------------------------------------------------------------------------------------

    def _changes(
        self,
        a: stats.Matrix,
        b: stats.Matrix | None,
        errors_a: Sequence[Sequence[str]],
        errors_b: Sequence[Sequence[str]] | None,
    ) -> tuple[tuple[ChangedQuestion, ...], tuple[ChangedQuestion, ...]]:
        if b is None or self.second is None or errors_b is None:
            return (), ()
        moved = b.mean(axis=0) - a.mean(axis=0)
        changed = []
        for column, key in enumerate(self.questions.ids):
            if abs(moved[column]) > 1e-9:
                # Of several seeds a pair that shows the change best is shown.
                i, j = _clearest(a[:, column], b[:, column], moved[column] > 0)
                before, after, facts = self.first[key][i], self.second[key][j], self.questions.facts.get(key)
                changed.append(
                    ChangedQuestion(
                        key,
                        facts.text if facts else "",
                        facts.expected if facts else before.answers,
                        _shown(before.prediction, facts),
                        _shown(after.prediction, facts),
                        errors_a[column][i],
                        errors_b[column][j],
                        round(float(moved[column]), 6),
                        before.category,
                    )
                )
        changed.sort(key=lambda change: (-abs(change.difference), change.question_id))
        fixed, broken = [c for c in changed if c.difference > 0], [c for c in changed if c.difference < 0]
        return self._with_pictures(fixed), self._with_pictures(broken)

    def _with_pictures(self, changed: Sequence[ChangedQuestion]) -> tuple[ChangedQuestion, ...]:
        shown = [replace(c, picture=self._picture(c.question_id)) for c in changed[:MAX_PICTURES]]
        return (*shown, *changed[MAX_PICTURES:])

    def _picture(self, key: str) -> str:
        """Path of a question's picture; one that lies inside the question file is written out first."""
        facts = self.questions.facts.get(key)
        if facts is None or facts.image is None:
            return ""
        if isinstance(facts.image, ImageRef):
            return facts.image.path
        if self.pictures is None:
            return ""
        path = self.pictures / f"{digest_bytes(facts.image)[:16]}.img"
        if not path.is_file():
            write_atomic(path, facts.image)
        return str(path)

    def _agreement(self, a: stats.Matrix, b: stats.Matrix | None) -> Agreement | None:
        if b is None or self.second is None:
            return None
        before, after = (
            [[one.extracted for one in table[key]] for key in self.questions.ids] for table in (self.first, self.second)
        )
        return agreement(a, b, before, after, self.questions.clusters, self.resamples)


def _error(one: Answered, facts: Facts | None) -> str:
    if facts is not None and facts.options:
        answers = one.answers.split(SEPARATOR)
        letters = letters_of(one.extracted, len(answers))
        # A rule that wants the bare letter scores 0 where the letter can be read all the same.
        error = option_error(letters, answers, one.prediction.split(SEPARATOR))
        return RIGHT if one.score >= 1.0 else "no option named" if error == RIGHT else error
    expected = facts.expected if facts is not None else one.answers.split(SEPARATOR)[0]
    return free_error(one.extracted or one.prediction, expected, one.score, facts.text if facts is not None else "")


def _clearest(a: stats.Matrix, b: stats.Matrix, is_better: bool) -> tuple[int, int]:
    """Seeds of A and B, the same one where it can be, whose scores (S,) differ most in the given direction."""
    pairs = min(len(a), len(b))
    gain = (b[:pairs] - a[:pairs]) * (1 if is_better else -1)
    if gain.max() > 0:
        return int(gain.argmax()), int(gain.argmax())
    return (int(a.argmin()), int(b.argmax())) if is_better else (int(a.argmax()), int(b.argmin()))


def _shown(answer: str, facts: Facts | None) -> str:
    """The answer, with the option that a lone letter stands for."""
    option = facts.options.get(answer.strip()) if facts is not None else None
    return answer if option is None else f"{answer.strip()}. {option}"


def _share(errors: Sequence[Sequence[str]], name: str) -> stats.Matrix:
    return np.array([[float(error == name) for error in row] for row in errors]).T


def _mean(columns: stats.Matrix, mean: float, resamples: int) -> Interval:
    """Interval of a mean in percent; Wilson's where all columns are equal, never outside 0-100."""
    found = stats.mean_interval(columns, resamples=resamples)
    if np.ptp(columns) < 1e-12:
        low, high = wilson(mean, columns.shape[1])
        return scaled(Interval(mean, low, high), 100)
    return scaled(Interval(mean, max(0.0, found.low), min(1.0, found.high)), 100)


def _difference(a: stats.Matrix, b: stats.Matrix, is_paired: bool, resamples: int) -> tuple[Interval, float]:
    """Paired interval in points and p-value. Where every question changed alike there is nothing to resample: the
    interval is then as wide as Wilson's for so many questions, and the p-value that of a sign test."""
    each = b.mean(axis=0) - a.mean(axis=0)
    if np.ptp(each) < 1e-12:
        value, count = float(each[0]), len(each)
        _, hidden = wilson(0.0, count)
        interval = Interval(value, max(-1.0, value - hidden), min(1.0, value + hidden))
        return scaled(interval, 100), 1.0 if abs(value) < 1e-12 else min(1.0, 2 * 0.5**count)
    found = stats.paired_difference(a, b, is_seed_paired=is_paired, resamples=resamples)
    interval = Interval(found.interval.value, max(-1.0, found.interval.low), min(1.0, found.interval.high))
    return scaled(interval, 100), found.p_value


def _verdict(whole: Group, p_value: float, chance: float) -> str:
    if whole.b is None or whole.difference is None:
        return "at chance" if whole.a.low <= chance else ""
    return stats.verdict(
        whole.difference.value, p_value, a_at_chance=whole.a.low <= chance, b_at_chance=whole.b.low <= chance
    )
