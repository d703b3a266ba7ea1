from __future__ import annotations

from dataclasses import replace

import pytest

from bettersynth.config.experiment import Condition, ExperimentConfig
from bettersynth.core.budget import Budget
from bettersynth.core.errors import ConfigError, DataError, ProvenanceError
from bettersynth.experiment import equal_compute, tables
from bettersynth.experiment.compare import compare

from .test_trials import fake_trial

SEEDS = (1, 2, 3)


def _config(*extra, **keys):
    conditions = (Condition(name="raw", role="baseline"), Condition(name="same"), Condition(name="good"), *extra)
    return ExperimentConfig(conditions=conditions, seeds=SEEDS, resamples=400, **keys)


def _trials(config, seeds=SEEDS):
    return {c.name: {s: fake_trial.result(c.name, s) for s in seeds} for c in config.conditions}


def test_a_clear_winner_a_tie_and_a_benchmark_at_chance():
    config = _config(Condition(name="ceiling", role="reference", note="knows the labels"))
    table = compare(config, _trials(config))
    verdicts = {(c.b, c.protocol): c.verdict for c in table.comparisons}
    assert verdicts["good", "textvqa-noocr"] == "better" and verdicts["same", "textvqa-noocr"] == "tie"
    assert {word for (_, protocol), word in verdicts.items() if protocol == "mmbench-vanilla"} == {"at chance"}
    assert table.ranks["textvqa-noocr"] == {"good": 1, "raw": 2, "same": 2}
    assert set(table.ranks["mmbench-vanilla"].values()) == {1}
    good = next(c for c in table.comparisons if c.b == "good" and c.protocol == "textvqa-noocr")
    assert good.relative_percent == pytest.approx(100 * (good.score_b.value / good.score_a.value - 1))
    assert good.difference.low > 25 and good.num_seeds == 3 and good.p_value <= good.p_value_holm < 0.05
    assert all(c.relative_percent is None for c in table.comparisons if c.protocol == "mmbench-vanilla")
    score = table.results["good"][0]
    assert score.score.low < score.score.value < score.score.high and len(score.per_seed) == 3
    assert "ceiling: knows the labels" in table.notes


def test_unequal_budgets_are_refused_unless_the_row_is_marked():
    config = _config(Condition(name="questions", role="open"))
    trials = _trials(config)
    more = {"stage 1": Budget(1600, 16), "stage 2": Budget(400, 16)}
    trials["questions"] = {s: replace(r, budgets=more) for s, r in trials["questions"].items()}
    table = compare(config, trials)
    assert any("questions" in note and "another budget" in note for note in table.notes)
    assert "questions" not in table.ranks["textvqa-noocr"]
    trials["good"] = {s: replace(r, budgets=more) for s, r in trials["good"].items()}
    with pytest.raises(ConfigError, match="same compute budget") as caught:
        compare(config, trials)
    assert "1600" in caught.value.got


def test_a_stage_that_only_some_ran_is_another_budget():
    spent = {"raw": {"stage 1": Budget(8, 2)}, "none": {}}
    assert equal_compute.check(spent, {"raw": "baseline", "none": "reference"}) == ["none"]
    with pytest.raises(ConfigError):
        equal_compute.check(spent, {"raw": "baseline", "none": "strategy"})


def test_seeds_of_one_condition_must_agree():
    by_seed = {1: fake_trial.result("raw", 1), 2: replace(fake_trial.result("raw", 2), budgets={})}
    with pytest.raises(ConfigError, match="seeds of one condition"):
        equal_compute.spent_by("raw", by_seed)


def test_trials_must_be_complete_and_ask_the_same():
    config = _config()
    trials = _trials(config)
    with pytest.raises(DataError, match="without a finished trial"):
        compare(config, trials | {"good": {}})
    with pytest.raises(DataError, match="same questions"):
        compare(config, trials | {"good": {1: fake_trial.result("good", 1, questions=150)}})


def test_a_score_without_provenance_is_not_compared():
    config = _config()
    trials = _trials(config)
    bare = [replace(r, provenance={}) for r in trials["good"][2].results]
    trials["good"][2] = replace(trials["good"][2], results=tuple(bare))
    with pytest.raises(ProvenanceError):
        compare(config, trials)


def test_pairs_use_the_seeds_in_common_and_one_seed_says_so():
    config = _config()
    trials = _trials(config)
    trials["good"] = {s: r for s, r in trials["good"].items() if s != 3}
    table = compare(config, trials)
    assert {c.b: c.num_seeds for c in table.comparisons} == {"same": 3, "good": 2}
    assert any("between 2 and 3 seeds" in note for note in table.notes)
    trials["good"] = {9: fake_trial.result("good", 9)}
    unpaired = [test for test in compare(config, trials).tests if test["b"] == "good"]
    assert all(not test["is_seed_paired"] for test in unpaired)
    single = compare(config, _trials(config, seeds=(1,)))
    assert any(note.startswith("One seed") for note in single.notes)
    assert single.tests[0]["p_mcnemar"] is not None


def test_the_artifact_reads_back_and_does_not_depend_on_seconds(tmp_path):
    config = _config()
    trials = _trials(config)
    table = compare(config, trials)
    artifact = tables.write(table, trials, tmp_path / "a")
    assert tables.load(tmp_path / "a") == table
    slower = {c: {s: replace(r, cpu_s=9.0) for s, r in by.items()} for c, by in trials.items()}
    assert tables.write(compare(config, slower), slower, tmp_path / "b").digest == artifact.digest
    rows = (tmp_path / "a" / "trials.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 3 * 2 and rows[0].startswith("condition,seed,protocol,score")
    assert "good,1,train,1.5,2.0" in (tmp_path / "a" / "costs.csv").read_text()
    text = (tmp_path / "a" / "comparison.json").read_text()
    (tmp_path / "a" / "comparison.json").write_text(text.replace('"better"', '"worse"'))
    with pytest.raises(DataError, match="changed after"):
        tables.load(tmp_path / "a")


def test_the_markdown_table_says_tie_and_at_chance():
    config = _config()
    text = tables.markdown(compare(config, _trials(config)))
    lines = text.splitlines()
    assert lines[2].startswith("| good |") and "better" in lines[2] and "#1" in lines[2]
    assert "tie" in next(line for line in lines if line.startswith("| same |"))
    assert all("at chance" in line for line in lines[2:5]) and "#1 at chance" not in text
    assert "raw (baseline)" in text
