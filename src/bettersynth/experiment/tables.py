"""The comparison artifact and its tables: JSON for programs, CSV per trial, Markdown for a README."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.record import Comparison, EvalResult, Interval
from bettersynth.eval.protocol import require_provenance
from bettersynth.eval.score import parse_result
from bettersynth.experiment.compare import ComparisonTable, Trials

COMPARISON = "comparison.json"
TRIALS = "trials.csv"


def write(table: ComparisonTable, trials: Trials, out: Path, *, run: Mapping[str, Any] | None = None) -> Artifact:
    """Write the comparison artifact: ``comparison.json``, ``trials.csv``; beside them ``costs.csv``, ``comparison.md``.

    Seconds differ between runs, so files that hold them are not part of the artifact's digest.
    """
    document = asdict(table)
    costs = document.pop("costs")
    write_atomic(out / COMPARISON, json.dumps(document, ensure_ascii=False, indent=1).encode())
    write_atomic(out / TRIALS, trials_csv(trials).encode())
    write_atomic(out / "costs.csv", costs_csv(trials).encode())
    write_atomic(out / "comparison.md", markdown(table).encode())
    facts = {"name": table.name, "baseline": table.baseline, "conditions": list(table.results)}
    parents = {
        f"{name} {result.protocol}": result.provenance["predictions"]
        for name, results in table.results.items()
        for result in results
    }
    measured = {**(run or {}), "costs": costs}
    return write_manifest(
        out, kind="comparison", facts=facts, files=[COMPARISON, TRIALS], parents=parents, run=measured
    )


def load(folder: Path) -> ComparisonTable:
    """A comparison from its folder; every score's provenance is checked.

    Raises:
        DataError: nothing finished here, or changed files.
        ProvenanceError: a score that does not say where it comes from.
    """
    artifact = Artifact.load(folder, kind="comparison")
    changed = artifact.verify()
    if changed:
        raise DataError(
            t("files were changed after the comparison was made"), where=str(folder), got=", ".join(changed)
        )
    raw = json.loads((folder / COMPARISON).read_text(encoding="utf-8"))
    for key in ("score_a", "score_b", "difference"):
        for comparison in raw["comparisons"]:
            comparison[key] = Interval(**comparison[key])
    raw["comparisons"] = tuple(Comparison(**comparison) for comparison in raw["comparisons"])
    raw["results"] = {
        name: tuple(require_provenance(parse_result(result)) for result in results)
        for name, results in raw["results"].items()
    }
    raw["tests"], raw["notes"] = tuple(raw["tests"]), tuple(raw["notes"])
    return ComparisonTable(**raw, costs=artifact.run.get("costs", {}))


def trials_csv(trials: Trials) -> str:
    """One line per condition, seed and protocol, with its provenance."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    digests = ("checkpoint", "predictions", "prompt", "decoding", "data")
    writer.writerow(("condition", "seed", "protocol", "score", "chance", "questions", *digests))
    for name, by_seed in trials.items():
        for seed, trial in sorted(by_seed.items()):
            for result in map(require_provenance, trial.results):
                cells = (f"{result.score.value:.4f}", f"{result.chance:.4f}", result.num_questions)
                stamps = [result.provenance[key] for key in digests]
                writer.writerow((name, seed, result.protocol, *cells, *stamps))
    return stream.getvalue()


def costs_csv(trials: Trials) -> str:
    """Seconds of every trial: the whole, then its stages."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("condition", "seed", "stage", "cpu_s", "wall_s"))
    for name, by_seed in trials.items():
        for seed, trial in sorted(by_seed.items()):
            writer.writerow((name, seed, "trial", trial.cpu_s, trial.wall_s))
            writer.writerows((name, seed, cost.stage, cost.cpu_s, cost.wall_s) for cost in trial.costs)
    return stream.getvalue()


def markdown(table: ComparisonTable) -> str:
    """The table for a README: one line per condition; per protocol its mean, interval, rank and verdict."""
    header, rows = cells(table)
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    notes = legend(table)
    return "\n".join([*lines, "", *notes[:2], *(f"* {note}" for note in notes[2:])]) + "\n"


def cells(table: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, the best under the first protocol on top."""
    protocols = [result.protocol for result in next(iter(table.results.values()))]
    words = {(c.b, c.protocol): c for c in table.comparisons}
    rows = []
    for name in sorted(table.results, key=lambda name: -table.results[name][0].score.value):
        shown = [
            _cell(result, table.ranks[result.protocol].get(name), words.get((name, result.protocol)))
            for result in table.results[name]
        ]
        role = table.roles[name]
        label = name if role == "strategy" else f"{name} ({t(role)})"
        rows.append([label, *shown, f"{table.costs[name]['cpu_s']:.0f}"])
    return [t("condition"), *protocols, t("CPU s per trial")], rows


def legend(table: ComparisonTable) -> list[str]:
    """What a reader of the table must know: two sentences on what its cells say, then the notes."""
    chances = ", ".join(f"{r.protocol} {r.chance:.1f}" for r in next(iter(table.results.values())))
    seeds = max(len(results[0].per_seed) for results in table.results.values())
    mean = t(
        "Mean of {n} seeds in percent, 95 % interval over seeds and questions; chance: {chances}.",
        n=seeds,
        chances=chances,
    )
    ranks = t(
        "#: rank, all pairs corrected together (equal ranks are ties); verdicts against {name} alone; both by Holm.",
        name=table.baseline,
    )
    limits = {r.provenance["limit"] for results in table.results.values() for r in results if "limit" in r.provenance}
    short = [t("Only the first {n} questions were asked (--limit).", n=", ".join(sorted(limits)))] if limits else []
    return [mean, ranks, *short, *table.notes]


def _cell(result: EvalResult, rank: int | None, comparison: Comparison | None) -> str:
    shown = f"{result.score.value:.1f} [{result.score.low:.1f}, {result.score.high:.1f}]"
    if rank is not None and not result.at_chance:
        shown += f" #{rank}"
    if result.at_chance:
        return f"{shown} {t('at chance')}"
    if comparison is None:
        return shown
    gain = "" if comparison.relative_percent is None else f" {comparison.relative_percent:+.0f} %"
    return f"{shown} {t(comparison.verdict)}{gain if comparison.verdict in ('better', 'worse') else ''}"
