from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bettersynth.core.errors import BetterSynthError, ConfigError, DataError, RunInterrupted
from bettersynth.experiment.trials import FAILED, TRIAL, Trial, load_trial, run_trials, save_trial


def _load_fakes():
    """Import the helper under a plain name, which other processes can import too (they get the parent's sys.path)."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("fake_trial")


fake_trial = _load_fakes()


def _trials(folder, conditions=("raw", "good"), seeds=(1, 2), fingerprint="f"):
    return [Trial(c, s, folder / f"{c}-{s}", fingerprint) for c in conditions for s in seeds]


def _calls(folder):
    return sum(len(path.read_text().splitlines()) for path in folder.glob("*/calls.txt"))


def test_results_come_back_as_they_were_and_finished_trials_are_skipped(tmp_path):
    seen = []
    results = run_trials(_trials(tmp_path), fake_trial.run, progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert sorted(results) == ["good", "raw"] and sorted(results["raw"]) == [1, 2]
    expected = fake_trial.result("raw", 1)
    assert results["raw"][1].scores == expected.scores and results["raw"][1].results == expected.results
    assert results["raw"][1].budgets == expected.budgets and results["raw"][1].costs == expected.costs
    assert results["raw"][1].wall_s > 0
    assert run_trials(_trials(tmp_path), fake_trial.run) == results
    assert _calls(tmp_path) == 4


def test_other_inputs_run_again(tmp_path):
    run_trials(_trials(tmp_path), fake_trial.run)
    run_trials(_trials(tmp_path, fingerprint="other"), fake_trial.run)
    assert _calls(tmp_path) == 8


def test_several_processes_give_the_same_with_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    alone = run_trials(_trials(tmp_path / "a"), fake_trial.run)
    together = run_trials(_trials(tmp_path / "b"), fake_trial.run, workers=2)
    assert {c: {s: r.scores for s, r in by.items()} for c, by in alone.items()} == {
        c: {s: r.scores for s, r in by.items()} for c, by in together.items()
    }
    calls = [path.read_text().split() for path in (tmp_path / "b").glob("*/calls.txt")]
    assert {threads for _, threads in calls} == {"1"} and str(os.getpid()) not in {pid for pid, _ in calls}
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_failures_do_not_stop_the_others_and_are_retried(tmp_path):
    trials = _trials(tmp_path, ("raw",), (1, 2, 3, 5))
    with pytest.raises(BetterSynthError, match="2 of 4 trials failed") as caught:
        run_trials(trials, fake_trial.run_badly)
    assert "raw seed 2, raw seed 3" in caught.value.where and "the recipe is wrong" in caught.value.got
    assert "recipe.yaml:1" in (tmp_path / "raw-2" / FAILED).read_text()
    assert "ZeroDivisionError" in (tmp_path / "raw-3" / FAILED).read_text()
    assert (tmp_path / "raw-5" / TRIAL).exists()
    for seed in (2, 3):
        (tmp_path / f"raw-{seed}" / "mended").touch()
    assert len(run_trials(trials, fake_trial.run_badly)["raw"]) == 4
    assert not (tmp_path / "raw-2" / FAILED).exists() and _calls(tmp_path) == 2


def test_a_dying_process_is_reported(tmp_path):
    with pytest.raises(BetterSynthError, match="trials failed") as caught:
        run_trials(_trials(tmp_path, ("raw",), (4, 1)), fake_trial.run_badly, workers=2)
    assert "its process died" in caught.value.got


def test_an_interrupt_keeps_what_is_finished(tmp_path):
    def interrupted(condition, seed, folder):
        if seed == 2:
            raise KeyboardInterrupt
        return fake_trial.run(condition, seed, folder)

    with pytest.raises(RunInterrupted, match="1 of 4"):
        run_trials(_trials(tmp_path), interrupted)
    assert (tmp_path / "raw-1" / TRIAL).exists()


def test_an_interrupted_training_ends_all_and_not_only_its_trial(tmp_path):
    def interrupted(condition, seed, folder):
        if seed == 2:
            raise RunInterrupted("interrupted after step 3 of 9; the state is saved")
        return fake_trial.run(condition, seed, folder)

    with pytest.raises(RunInterrupted, match="1 of 4"):
        run_trials(_trials(tmp_path), interrupted)
    assert not (tmp_path / "raw-2" / FAILED).exists()
    assert not list(tmp_path.glob("good-*/calls.txt"))


SCRIPT = """
import sys
from pathlib import Path
import fake_trial
from bettersynth.cli.main import sigterm_interrupts
from bettersynth.core.errors import RunInterrupted
from bettersynth.experiment.trials import Trial, run_trials

if __name__ == "__main__":
    trials = [Trial("raw", seed, Path(sys.argv[1]) / f"raw-{seed}", "") for seed in range(4)]
    try:
        with sigterm_interrupts():
            run_trials(trials, fake_trial.run_until_told, workers=2)
    except RunInterrupted as error:
        sys.exit(error.exit_code)
"""


def test_sigterm_ends_trials_in_processes_and_starts_no_more(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*/started"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert len(list(tmp_path.glob("*/state"))) == 2
    assert len(list(tmp_path.glob("*/started"))) == 2
    assert not list(tmp_path.glob(f"*/{FAILED}"))


def test_a_function_that_cannot_travel_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be sent"):
        run_trials(_trials(tmp_path), lambda c, s, f: None, workers=2)


def test_a_damaged_trial_file_is_named(tmp_path):
    trial = Trial("raw", 1, tmp_path)
    save_trial(trial, fake_trial.result("raw", 1))
    assert load_trial(trial).scores == fake_trial.result("raw", 1).scores
    text = (tmp_path / TRIAL).read_text()
    (tmp_path / TRIAL).write_text(text[:-30])
    with pytest.raises(DataError, match="damaged trial file"):
        load_trial(trial)
