"""The loop on a tiny world with the golden set's random model: data, both stages, answers, scores, resume."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bettersynth.config.eval import DecodingConfig
from bettersynth.config.experiment import Condition, ExperimentConfig
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.demo.world.build import WorldSizes, build
from bettersynth.experiment.compare import compare
from bettersynth.experiment.loop import LoopTrial, convert, make_data, strategy_path, strategy_recipe
from bettersynth.experiment.run import Places, run_experiment
from bettersynth.experiment.trials import Trial, run_trials
from bettersynth.experiment.workspace import Workspace
from bettersynth.formats.llava import read_llava
from bettersynth.infer.protocols import Decoding

_ROOT = Path(__file__).resolve().parents[3]
_STAGE = (
    "{lr: 1.0e-3, global_batch: 4, per_device_batch_size: 4, samples_seen: %d, max_length: 256, image_size_aux: 128, "
)
_STAGE += "image_aspect_ratio: pad, precision: fp32, workers: 0}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("ws")
    build(root, sizes=WorldSizes(16, 8, 4, 3, 3, 2), seed=1)
    return Workspace(root)


@pytest.fixture(scope="module")
def model_zoo(workspace):
    beside = _ROOT.parent / "shared" / "golden" / "mgm_a"
    places = [Path(os.environ.get("BETTERSYNTH_GOLDEN_MGM", beside)), _ROOT / "tests" / "golden" / "data" / "mgm_a"]
    source = next((place / "model_zoo" for place in places if (place / "model_zoo").is_dir()), None)
    if source is None:
        pytest.skip("no golden model zoo: set BETTERSYNTH_GOLDEN_MGM")
    target = workspace.root / "toolkit" / "training" / "model_zoo"
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return target


@pytest.fixture(scope="module")
def config(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    (folder / "preset.yaml").write_text(
        f"track: open\nlocked: false\npretrain: {_STAGE % 8}\nfinetune: {_STAGE % 4}\n", encoding="utf-8"
    )
    (folder / "raw.yaml").write_text("hypothesis: nothing is done\ntrack: challenge\nprocess: []\n", encoding="utf-8")
    return ExperimentConfig(
        workspace=workspace.root,
        preset=str(folder / "preset.yaml"),
        seeds=(3,),
        conditions=(
            Condition(name="raw", strategy=str(folder / "raw.yaml"), role="baseline"),
            Condition(name="no_stage_1", role="reference"),
        ),
        tasks=("textvqa-noocr", "mmbench"),
        decoding=DecodingConfig(max_new_tokens=3),
    )


@pytest.fixture(scope="module")
def trial(config, workspace, model_zoo, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "raw"
    made = make_data(workspace, config.conditions[0].strategy, out, budget=8, workers=1)
    assert made.facts["rows"] == 16 and made.cost is not None
    data = {"raw": made, "no_stage_1": None}
    return LoopTrial(workspace.root, config.preset, data, config.tasks, decoding=config.decoding.build())


def test_both_stages_answers_and_scores_and_again_for_nothing(config, trial, tmp_path):
    trials = [Trial(c.name, 3, tmp_path / c.name, trial.fingerprint(c.name, 3)) for c in config.conditions]
    results = run_trials(trials, trial)
    table = compare(config, results)
    protocols = ["textvqa-noocr", "mmbench-vanilla", "mmbench-circular", "mmbench-kit"]
    assert [result.protocol for result in table.results["raw"]] == protocols
    assert table.budgets["raw"]["stage 1"] == {"samples_seen": 8, "global_batch": 4, "epochs": 1}
    assert any("no_stage_1" in note for note in table.notes) and "cpu_s stage 2" in table.costs["raw"]
    kit = tmp_path / "raw" / "eval_results" / "MGM-2B-Finetune-raw-3"
    assert (kit / "textvqa-noocr" / "answers.jsonl").exists()
    assert (kit / "mmbench" / "mmbench_dev_20230712.xlsx").exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run_trials(trials, trial) == results
    (tmp_path / "raw" / "trial.json").unlink()
    assert run_trials(trials, trial)["raw"][3].scores == results["raw"][3].scores
    weights = [path for path in before if path.suffix == ".safetensors" or path.name == "predictions.jsonl"]
    assert weights and all(path.stat().st_mtime_ns == before[path] for path in weights)


def test_a_trial_is_known_by_everything_it_depends_on(trial):
    others = [
        replace(trial, limit=2),
        replace(trial, split="dev"),
        replace(trial, decoding=None),
        replace(trial, overrides={"finetune": {"lr": 2e-3}}),
        replace(trial, data={"raw": None}),
        replace(trial, by_condition={"raw": {"finetune": {"techniques": {"ema": {}}}}}),
    ]
    prints = {each.fingerprint("raw", 3) for each in (trial, *others)}
    of_another = replace(trial, by_condition={"half": {"finetune": {"techniques": {"ema": {}}}}})
    assert of_another.fingerprint("raw", 3) in prints
    assert len(prints) == 7 and trial.fingerprint("raw", 3) == replace(trial).fingerprint("raw", 3)


def test_a_condition_may_train_differently_on_an_open_preset(config, trial, workspace, tmp_path):
    techniques = {"techniques": {"ema": {"decay": 0.9}}}
    own = replace(trial, by_condition={"no_stage_1": {"finetune": techniques}})
    _, checkpoint = own.train("no_stage_1", 3, tmp_path, None)
    assert checkpoint.facts["techniques"]["ema"]["averaged_steps"] > 0
    wrong = Condition(name="x", training={"finetune": {"techniques": {"emma": {}}, "lr": -1}})
    locked = config.model_copy(update={"conditions": (wrong,), "preset": "demo"})
    with pytest.raises(BetterSynthError, match="lr"):
        run_experiment(locked, Places(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_conditions_that_differ_in_stage_2_alone_share_data_and_stage_1(config, model_zoo, tmp_path):
    plain = config.conditions[0]
    ema = Condition(name="ema", strategy=plain.strategy, training={"finetune": {"techniques": {"ema": {"decay": 0.9}}}})
    other = Condition(name="other", strategy=plain.strategy, training={"pretrain": {"lr": 2e-3}})
    both = config.model_copy(update={"conditions": (plain, ema, other), "tasks": ("textvqa-noocr",)})
    outcome = run_experiment(both, Places(tmp_path), workers=1)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["raw"]
    assert outcome.data["ema"] == outcome.data["raw"]
    folders = {name: tmp_path / "trials" / f"{name}-3" / "training_dirs" for name in ("raw", "ema", "other")}
    first, shared, own = (folder / f"MGM-2B-Pretrain-{name}-3" for name, folder in folders.items())
    assert (first / "manifest.json").read_bytes() == (shared / "manifest.json").read_bytes()  # its seconds, too
    assert Artifact.load(own).digest != Artifact.load(first).digest
    assert Artifact.load(folders["ema"] / "MGM-2B-Finetune-ema-3").parents["adapter"] == Artifact.load(first).digest
    name = Artifact.load(shared).facts["weights_digest"]
    (first / "mm_projector.bin").write_bytes(b"changed")
    (tmp_path / "trials" / "ema-3" / "trial.json").unlink()
    shutil.rmtree(folders["ema"])
    run_experiment(both, Places(tmp_path), workers=1)  # what was changed is not taken over but trained
    assert Artifact.load(shared).facts["weights_digest"] == name


def test_data_of_a_seed_wins(trial):
    own = replace(trial, data={"half": None, "half@4": trial.data["raw"]})
    assert own.data_of("half", 3) is None and own.data_of("half", 4) is trial.data["raw"]


def test_rows_with_their_own_questions_keep_them(workspace, tmp_path):
    lines = workspace.seed_data.read_text(encoding="utf-8").splitlines()[:2]
    own = '{"id": "new", "images": [], "text": "[[human]]: Which sign?\\n[[gpt]]: STOP <|__dj__eoc|>"}'
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*lines, own]) + "\n", encoding="utf-8")
    stage = convert(path, workspace, tmp_path / "llava.json")
    records = read_llava(stage.path).records
    assert stage.facts["rows"] == len(records) == 3
    assert [turn["value"] for turn in records[2]["conversations"]] == ["Which sign?", "STOP"]
    assert "<image>" in records[0]["conversations"][0]["value"]


def test_a_selection_at_random_follows_the_seed_it_is_given(workspace):
    drawn = [strategy_recipe(workspace, "random_half", budget=8, seed=seed).steps[0].params["seed"] for seed in (1, 2)]
    assert drawn == [1, 2]


def test_what_is_missing_is_named(workspace, tmp_path):
    with pytest.raises(DataError, match="no seed data"):
        _ = Workspace(tmp_path).seed_data
    (tmp_path / "input" / "pretrain_stage_1_a").mkdir(parents=True)
    (tmp_path / "input" / "pretrain_stage_1_b").mkdir(parents=True)
    for letter in "ab":
        (tmp_path / "input" / f"pretrain_stage_1_{letter}" / "mgm_pretrain_stage_1.jsonl").touch()
    with pytest.raises(DataError, match="more than one"):
        _ = Workspace(tmp_path).seed_data
    with pytest.raises(ConfigError, match="unknown strategy"):
        strategy_path("no such strategy")


def test_answer_length_is_the_tasks_own_unless_given():
    assert not DecodingConfig().is_set
    assert DecodingConfig(max_new_tokens=5).build() == Decoding(5)
    assert DecodingConfig(do_sample=True, seed=2).build() == Decoding(1024, True, seed=2)
