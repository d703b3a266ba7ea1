"""Filters of texts that score the same rows at once decide, count and trace as they do one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.engine import trace
from bettersynth.engine.local import accounting_of, process
from bettersynth.engine.plan import plan
from bettersynth.engine.shard import _groups
from bettersynth.ops.base import Filter
from bettersynth.ops.filters.special_characters_filter import SpecialCharactersFilter
from bettersynth.ops.filters.words_num_filter import WordsNumFilter

STEPS = """
  - words_num_filter: {min_num: 5, max_num: 14}
  - alphanumeric_filter: {min_ratio: 0.64}
  - special_characters_filter: {max_ratio: 0.33}
"""


def outcome(folder: Path) -> Any:
    events = sorted((event["key"], event["step"], json.dumps(event)) for event in trace.load(folder))
    names = ("processed_data.jsonl", "quarantine.jsonl")
    return events, _counts(folder), [(folder / name).read_bytes() for name in names]


def _counts(folder: Path) -> list[Any]:
    artifact = Artifact.load(folder, kind="dataset")
    return [(e.operator, e.rows_in, e.rows_out, e.dropped, e.quarantined) for e in accounting_of(artifact)]


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (WordsNumFilter, SpecialCharactersFilter):
        monkeypatch.setattr(cls, "at_once", False)


def test_neighbours_are_grouped(recipe: Any) -> None:
    steps = STEPS + "  - text_length_filter: {min_len: 1}\n  - words_num_filter: {min_num: 2}\n"
    stages = plan(recipe(steps)).stages
    assert [[phase.operator.name for phase in group] for group in _groups(stages[-1].phases)] == [
        ["words_num_filter", "alphanumeric_filter", "special_characters_filter"],
        ["text_length_filter"],
        ["words_num_filter"],
    ]


def test_the_outcome_is_the_same(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(recipe(STEPS), out=tmp_path / "a", workers=1)
    one_by_one(monkeypatch)
    process(recipe(STEPS), out=tmp_path / "b", workers=1)
    at_once, apart = outcome(tmp_path / "a"), outcome(tmp_path / "b")
    assert at_once == apart
    assert all(entry[3] for entry in at_once[1][1:]), "every filter drops something, else this shows nothing"


def test_a_failing_row_is_set_aside_alone(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score: Any = SpecialCharactersFilter.score

    def failing(self: Filter, batch: Any, ctx: Any) -> Any:
        if "0011" in batch.column("id").to_pylist():
            raise ValueError("this row")
        return score(self, batch, ctx)

    monkeypatch.setattr(SpecialCharactersFilter, "score", failing)
    keys = {"max_failed_ratio": 0.2}
    artifact = process(recipe(STEPS.replace("min_num: 5", "min_num: 1"), **keys), out=tmp_path / "a", workers=1)
    [row] = [row for row in trace.history(tmp_path / "a", "0011") if row["action"] == "quarantined"]
    assert row["operator"] == "special_characters_filter" and "this row" in row["reason"]
    first = outcome(tmp_path / "a")
    one_by_one(monkeypatch)
    process(recipe(STEPS.replace("min_num: 5", "min_num: 1"), **keys), out=tmp_path / "b", workers=1)
    assert outcome(tmp_path / "b") == first and artifact.facts["quarantined"] == 3
