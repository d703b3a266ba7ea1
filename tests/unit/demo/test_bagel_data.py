"""Data against drawings: one trial of the tiny BAGEL, and (slow) the whole comparison with its verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bettersynth.core.errors import ConfigError
from bettersynth.demo.bagel import data_comparison as data
from bettersynth.demo.bagel.data import write_records
from bettersynth.demo.bagel.tour import write_model
from bettersynth.demo.world.vocab import BASE_VOCAB
from bettersynth.experiment.compare import compare


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> data.DrawingTrial:
    root = tmp_path_factory.mktemp("bagel_data")
    write_model(root / "start")
    write_records(root, count=16, seed=1)
    return data.DrawingTrial(
        start=root / "start",
        records={"raw": root / "train.jsonl", "none": None},
        images=root,
        cache=root / "cache",
        prompts=data.wanted_prompts(1, seed=0),
        samples=48,
        points=2,
    )


def test_prompts_ask_for_what_the_start_never_saw() -> None:
    prompts = data.wanted_prompts(5, seed=0)
    assert len(prompts) == 20 and {prompt.category for prompt in prompts} == {"single", "two", "counting", "position"}
    assert all((g.colour, g.kind) not in BASE_VOCAB.combos for prompt in prompts for g in prompt.facts.groups)


def test_trials_train_draw_and_can_be_compared(trial: data.DrawingTrial, tmp_path: Path) -> None:
    found = {name: {1: trial(name, 1, tmp_path / name)} for name in ("raw", "none")}
    raw, none = found["raw"][1], found["none"][1]
    assert raw.budgets["training"].samples_seen == 48 and not none.budgets
    assert set(raw.scores["composition"]) == {prompt.id for prompt in trial.prompts}
    assert all(raw.scores["composition"][key] >= value for key, value in raw.scores["composition-exact"].items())
    assert raw.results[0].provenance["checkpoint"] != none.results[0].provenance["checkpoint"]
    assert raw.results[0].by_category.keys() == {"single", "two", "counting", "position"}
    before = (tmp_path / "raw" / "pictures" / "single-0000-0.png").stat().st_mtime_ns
    assert trial("raw", 1, tmp_path / "raw").scores == raw.scores
    assert (tmp_path / "raw" / "pictures" / "single-0000-0.png").stat().st_mtime_ns == before
    config = data.experiment_config(tmp_path, replace(data.QUICK, seeds=(1,)))
    kept = tuple(condition for condition in config.conditions if condition.name in found)
    table = compare(config.model_copy(update={"conditions": kept}), found)
    assert [one.b for one in table.comparisons] == ["none", "none"] and "none" not in table.ranks["composition"]


def test_a_trial_is_run_again_when_its_records_change(trial: data.DrawingTrial, tmp_path: Path) -> None:
    assert trial.fingerprint("raw") != trial.fingerprint("none") != replace(trial, points=3).fingerprint("none")
    other = tmp_path / "other.jsonl"
    other.write_bytes(trial.records["raw"].read_bytes() + b"{}\n")  # type: ignore[union-attr]
    assert replace(trial, records={"raw": other}).fingerprint("raw") != trial.fingerprint("raw")


def test_only_the_bagel_demo_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bettersynth.cli.commands import demo
    from bettersynth.cli.main import build_parser

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="only the bagel demo"):
        demo.run(build_parser("demo").parse_args(["--compare"]))
    plan = data.plan_comparison(tmp_path, is_quick=True, seed=0)
    assert [row[0] for row in plan][:3] == ["data raw", "data balanced", "data clean"]
    assert {row[1] for row in plan} == {"to do"} and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_whole_comparison_continues_where_it_was(tmp_path: Path) -> None:
    said: list[str] = []
    found = data.compare_data(tmp_path, is_quick=True, seed=0, workers=1, say=said.append)
    assert set(found.table.results) == {"raw", "balanced", "clean", "none"}
    assert {one.a for one in found.against_start.comparisons} == {"none"}
    document = json.loads((found.folder / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert document["baseline"] == "raw"
    assert {row[1] for row in data.plan_comparison(tmp_path, is_quick=True, seed=0)} == {"done"}
    again = data.compare_data(tmp_path, is_quick=True, seed=0, workers=1, say=said.append)
    assert again.table.results == found.table.results and "trained and evaluated 4/4 " in said
