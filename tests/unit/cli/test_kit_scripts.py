"""The scripts of a kit call commands that exist, with flags that exist."""

import runpy
import subprocess
import sys

import pytest

from bettersynth.cli.main import main

SEED = "input/pretrain_stage_1_demo"
ROWS = f"{SEED}/mgm_pretrain_stage_1_demo.jsonl"
CONVERT = "toolkit/data-juicer/tools/multimodal"
SCRIPTS = {
    "solution/data_exploration.py": ["--json"],
    "solution/run_experiment.py": ["data_only", "--strategy", "mine.yaml", "--workers", "1"],
    "solution/dj_to_llava_format.py": ["--input", ROWS, "--output", "out.json"],
    "toolkit/data-juicer/tools/process_data.py": ["--config", "mine.yaml", "--workspace", ".", "--plan"],
    "toolkit/training/preprocess/check_sample_number.py": [ROWS, "out.jsonl", "5"],
    "toolkit/training/preprocess/check_global_batch_size.py": ["4", "4", "16"],
    f"{CONVERT}/data_juicer_format_to_target_format/dj_to_llava.py": [
        *(ROWS, "out.json", "--restore_questions", "True", "--original_llava_ds_path", f"{SEED}/stage_1.json"),
    ],
    f"{CONVERT}/source_format_to_data_juicer_format/llava_to_dj.py": [
        *(f"{SEED}/stage_1.json", "out.jsonl", "--only_keep_caption", "True", "--image_special_token", "<image>"),
    ],
}
HELPS = ("solution/strategy_comparison.py", "solution/analyze_results.py")


@pytest.mark.parametrize("script", [*SCRIPTS, *HELPS])
def test_script(script, world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("NUM_GPUS", "1")
    calls = []

    def run_here(command, **_):
        words = command[command.index("-m") + 2 :] if "-m" in command else command[1:]
        calls.append(words)
        try:
            return main(words)
        except SystemExit as stop:  # --help
            return stop.code

    monkeypatch.setattr(subprocess, "call", run_here)
    monkeypatch.setattr(sys, "argv", [script, *SCRIPTS.get(script, ["--help"])])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name="__main__")
    assert calls and stop.value.code in (0, None)
