"""Experiments from a file, the kit's usual one, controls without a recipe."""

import json
from pathlib import Path

import pytest

from bettersynth.cli.kit import control_builders
from bettersynth.config.experiment import Condition, ExperimentConfig


@pytest.fixture
def experiment(world):
    path = world / "experiment.yaml"
    path.write_text(
        f"name: two\npreset: {world / 'preset.yaml'}\nseeds: [3]\nsplit: dev\ntasks: [textvqa-noocr]\nresamples: 200\n"
        "decoding: {max_new_tokens: 3}\nconditions:\n"
        f"  - {{name: raw, strategy: '{world / 'raw.yaml'}', role: baseline}}\n"
        "  - {name: none, role: reference, note: stage 1 is left out}\n",
        encoding="utf-8",
    )
    return path


def test_plan_then_run_then_nothing_more_to_do(call, world, experiment):
    if not any((world / "toolkit" / "training" / "model_zoo" / "LLM" / "gemma").iterdir()):
        pytest.skip("no golden model zoo: set BETTERSYNTH_GOLDEN_MGM")
    command = ("compare", experiment, "--workspace", world, "--workers", 1)
    rows = call(*command, "--plan", "--json").data["conditions"]
    assert [row["condition"] for row in rows] == ["raw", "none"]
    assert rows[1]["data"] == "made by a control, not by a recipe"
    done = call(*command)
    assert "raw (baseline)" in done.out and "none (reference)" in done.out and "at chance" in done.out
    assert "stage 1 is left out" in done.out and "Development questions" in done.out
    out = world / "output" / "experiments" / "two"
    assert json.loads((out / "comparison" / "comparison.json").read_text())["baseline"] == "raw"
    assert "none" in (out / "report" / "report.html").read_text(encoding="utf-8")
    assert call(*command, "--plan", "--json").data["conditions"][0]["seeds"] == "1/1 done"
    again = call("report", out, "--out", world / "page", "--json").data
    assert "stage 1 is left out" in Path(again["page"]).read_text(encoding="utf-8")


def test_controls_of_a_demo_world_write_true_captions(tiny_world, tmp_path):
    conditions = tuple(Condition(name=name) for name in ("clean", "clean_half", "none", "raw"))
    builders = control_builders(ExperimentConfig(workspace=tiny_world, conditions=conditions))
    assert set(builders) == {"clean", "clean_half", "none"} and builders["none"](tmp_path) is None
    assert builders["clean"](tmp_path / "a").facts["rows"] == 16
    assert builders["clean_half"](tmp_path / "b").facts["rows"] == 8
    elsewhere = ExperimentConfig(workspace=tmp_path, conditions=conditions)
    assert set(control_builders(elsewhere)) == {"none"}


def test_without_a_file_the_kits_strategies_are_compared(tiny_world):
    from bettersynth.cli.commands.compare import usual_experiment

    usual = usual_experiment(tiny_world)
    assert usual["preset"] == "demo" and usual["seeds"] == [1, 2, 3, 4, 5]
    assert usual["conditions"][0] == {"name": "raw", "role": "baseline"}
    named = [condition["name"] for condition in usual["conditions"]]
    mine = {path.stem for path in (tiny_world / "solution").glob("*_focused.yaml")}
    assert mine <= set(named) and {"none", "clean", "clean_half", "random_half", "cluster_uniform"} <= set(named)
    roles = {condition["name"]: condition.get("role", "strategy") for condition in usual["conditions"]}
    assert roles["clean"] == roles["none"] == "reference" and roles["balanced_with_qa"] == "open"
    ExperimentConfig.model_validate_json(json.dumps(usual))


def test_mistakes_of_the_file_are_shown_together(call, world, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("seed: [1]\nconditions:\n  - {name: a, rol: baseline}\n", encoding="utf-8")
    error = call("compare", path, "--workspace", world, expect=2).err
    assert "unknown key 'seed'" in error and "unknown key 'rol'" in error and "did you mean 'role'" in error
    assert "cannot read the file" in call("compare", tmp_path / "no.yaml", expect=2).err


def test_a_plan_names_preset_and_budget(call, world, experiment):
    done = call("compare", experiment, "--workspace", world, "--plan")
    shown = " ".join(done.out.split())
    assert f"preset {world / 'preset.yaml'}" in shown and "stage 1 8 samples in batches of 4" in shown
    assert "stage 2 4 samples in batches of 4" in shown and "seeds 3 trials 2" in shown
