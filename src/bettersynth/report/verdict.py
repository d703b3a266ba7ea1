"""The sentences on top of a report: who won, by how much, or that nobody did. Never a gain where all is at chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bettersynth.core.errors import ProvenanceError
from bettersynth.core.lang import t
from bettersynth.core.record import Comparison, EvalResult, ReportInput
from bettersynth.report.text import Message, interval, points, signed

REQUIRED_PROVENANCE = ("checkpoint", "prompt", "decoding", "predictions")
FEW_QUESTIONS = 100
"""Below this, intervals are wider than any gain one may hope for, and one of several protocols stands out by chance."""
VERDICT_WORDS = {"better": "better", "worse": "worse", "tie": "tie", "at chance": "at chance"}


def require_provenance(results: Mapping[str, Sequence[EvalResult]]) -> None:
    """Refuse scores that do not say which checkpoint, prompt, decoding and predictions they come from.

    Raises:
        ProvenanceError: names the first such score and what it lacks.
    """
    for name, scores in results.items():
        for score in scores:
            missing = [
                need
                for need in REQUIRED_PROVENANCE
                if not any(key.startswith(need) and value for key, value in score.provenance.items())
            ]
            if missing:
                raise ProvenanceError(
                    t("a score without provenance cannot be shown"),
                    where=f"{name}: {score.protocol}",
                    got=t("no {names}", names=", ".join(missing)),
                    expected=t("digests of checkpoint, prompt, decoding and predictions"),
                    hint=t("make it with: bettersynth eval, then: bettersynth score"),
                )


def result_of(report: ReportInput, condition: str, protocol: str) -> EvalResult | None:
    """The score of one condition under one protocol, if there is one."""
    return next((score for score in report.results.get(condition, ()) if score.protocol == protocol), None)


def verdict_of(report: ReportInput, comparison: Comparison) -> str:
    """The comparison's verdict; ``better`` becomes ``at chance`` when the better side is itself at chance."""
    winner = result_of(report, comparison.b, comparison.protocol)
    if comparison.verdict == "better" and winner is not None and winner.at_chance:
        return "at chance"
    return comparison.verdict


def protocols(report: ReportInput) -> list[str]:
    """All protocols, those of the comparisons first, in order of appearance."""
    seen = [comparison.protocol for comparison in report.comparisons]
    seen += [score.protocol for scores in report.results.values() for score in scores]
    return list(dict.fromkeys(seen))


def verdicts(report: ReportInput) -> list[Message]:
    """One sentence per protocol, the headline first; falls back to scores, then to row counts."""
    compared = list(dict.fromkeys(comparison.protocol for comparison in report.comparisons))
    messages = []
    for protocol in compared:
        candidates = [c for c in report.comparisons if c.protocol == protocol and _may_win(report, c)]
        if candidates:
            messages.append(_sentence(report, candidates))
    if messages:
        return [*_few_questions(report, compared), *messages]
    if any(report.results.values()):
        return [_plain_score(name, score) for name, scores in report.results.items() for score in scores]
    if report.datasets:
        return [_rows(report)]
    return [Message("Nothing was measured yet.")]


def _few_questions(report: ReportInput, compared: Sequence[str]) -> list[Message]:
    """A warning in front of everything when so little was asked that even a clear difference is no finding."""
    asked = [s.num_questions for scores in report.results.values() for s in scores if s.protocol in compared]
    if not asked or min(asked) >= FEW_QUESTIONS:
        return []
    text = "Only {n} questions were asked: this shows that everything works. Take no difference below for a finding."
    return [Message(text, {"n": min(asked)}, "bad")]


def _may_win(report: ReportInput, comparison: Comparison) -> bool:
    return report.roles.get(comparison.b, "strategy") in ("strategy", "baseline")


def _sentence(report: ReportInput, candidates: Sequence[Comparison]) -> Message:
    by_verdict = {
        verdict: [c for c in candidates if verdict_of(report, c) == verdict]
        for verdict in ("better", "tie", "worse", "at chance")
    }
    if by_verdict["better"]:
        best = max(by_verdict["better"], key=lambda c: c.difference.value)
        return _won(report, best, len(by_verdict["better"]))
    if by_verdict["tie"]:
        best = max(by_verdict["tie"], key=lambda c: c.difference.value)
        return Message(
            "Tie on {protocol}: nothing is distinguishable from {a}. The largest difference, {b}, is {difference} "
            "points {interval}.",
            _facts(best),
        )
    if by_verdict["at chance"]:
        first = by_verdict["at chance"][0]
        result = result_of(report, first.b, first.protocol)
        chance = points(result.chance) if result else "n/a"
        return Message(
            "At chance on {protocol}: the scores do not differ from guessing ({chance} %), so nothing is won or lost "
            "there.",
            {**_facts(first), "chance": chance},
        )
    worst = max(by_verdict["worse"], key=lambda c: c.difference.value)
    return Message(
        "{a} stays ahead on {protocol}: the nearest, {b}, is {difference} points behind it {interval}.",
        _facts(worst),
        "bad",
    )


def _won(report: ReportInput, best: Comparison, count: int) -> Message:
    rivals = {c.b: c for c in report.comparisons if c.protocol == best.protocol and c.a == best.a}
    level = [
        c
        for c in report.comparisons
        if c.protocol == best.protocol and best.b in (c.a, c.b) and {c.a, c.b} <= set(rivals) and c.verdict == "tie"
    ]
    if level:
        other = level[0].a if level[0].b == best.b else level[0].b
        return Message(
            "{b} and {other} share the lead on {protocol}: {b} scores {score_b} % against {score_a} % for {a}, "
            "{difference} points {interval} over {seeds} seeds.",
            {**_facts(best), "other": other},
            "good",
        )
    template = (
        "{b} wins on {protocol}: {score_b} % against {score_a} % for {a}, {difference} points {interval} over {seeds} "
        "seeds."
        if count == 1
        else "{b} leads on {protocol}, the highest of {count} that beat {a}: {score_b} % against {score_a} %, "
        "{difference} points {interval} over {seeds} seeds."
    )
    if best.num_seeds == 1:
        template = (
            "{b} beats {a} on {protocol}: {score_b} % against {score_a} %, {difference} points {interval}; "
            "one seed only, so training luck is not excluded."
        )
    return Message(template, {**_facts(best), "count": count}, "good")


def _facts(comparison: Comparison) -> dict[str, object]:
    return {
        "a": comparison.a,
        "b": comparison.b,
        "protocol": comparison.protocol,
        "score_a": points(comparison.score_a.value),
        "score_b": points(comparison.score_b.value),
        "difference": signed(comparison.difference.value),
        "interval": interval(comparison.difference),
        "seeds": comparison.num_seeds,
    }


def _plain_score(name: str, score: EvalResult) -> Message:
    facts = {
        "name": name,
        "protocol": score.protocol,
        "score": points(score.score.value),
        "interval": interval(score.score),
        "chance": points(score.chance),
    }
    if score.at_chance:
        return Message(
            "{name} is at chance on {protocol}: {score} % {interval} where guessing gives {chance} %.", facts, "bad"
        )
    return Message("{name} scores {score} % {interval} on {protocol}; guessing gives {chance} %.", facts)


def _rows(report: ReportInput) -> Message:
    data = report.datasets[0]
    first, last = (data.accounting[0], data.accounting[-1]) if data.accounting else (None, None)
    if first is None or last is None:
        return Message(
            "{name} holds {rows} rows; nothing was trained or scored.", {"name": data.name, "rows": data.rows}
        )
    return Message(
        "{name}: {rows_in} rows in, {rows_out} out; nothing was trained or scored.",
        {"name": data.name, "rows_in": f"{first.rows_in:,}", "rows_out": f"{last.rows_out:,}"},
    )
