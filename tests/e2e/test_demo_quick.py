"""The quick demo from the command line: whole, and killed at several points and run again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from bettersynth.core.fingerprint import digest_file
from bettersynth.demo.tour import plan_demo
from bettersynth.submission.check import check

DATA = ("processed_data.jsonl", "llava_format.json", "quarantine.jsonl")


def _bytes_of(root: Path) -> dict[str, str]:
    """Digest of every file that a repetition must reproduce: data, answers, scores, the comparison, the zip."""
    wanted = [path for name in DATA for path in root.rglob(name)]
    for name in ("predictions.jsonl", "results.json", "questions.csv", "comparison.json"):
        wanted += root.rglob(name)
    return {str(path.relative_to(root)): digest_file(path) for path in sorted(wanted) if ".work" not in path.parts}


def _zip_entries(root: Path) -> dict[str, int]:
    """Checksum of every entry of the demo's zip but the training logs, which hold seconds."""
    with zipfile.ZipFile(root / "output" / "submission" / "submit.zip") as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist() if not entry.filename.endswith(".log")}


def test_quick_demo_makes_data_scores_page_and_zip(quick_demo: Path):
    root = quick_demo / "demo_out"
    page = (root / "demo" / "report" / "report.html").read_text(encoding="utf-8")
    assert (
        "textvqa-noocr" in page
        and "mmbench-circular" in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )
    with zipfile.ZipFile(root / "output" / "submission" / "submit.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"solution", "output"}
    assert check(root / "output" / "submission" / "submit.zip", track="demo").name == "balanced-1"
    manifest = json.loads((root / "output" / "processed_data" / "manifest.json").read_text())
    for step in manifest["facts"]["accounting"]:
        lost = (
            step["rows_in"] + step["rows_made"] - step["rows_out"] - sum(step["dropped"].values()) - step["quarantined"]
        )
        assert lost == 0, step


def test_the_plan_knows_which_demo_the_folder_holds(quick_demo: Path):
    root = quick_demo / "demo_out"
    states = {
        (quick, seed): {state for _, state, _ in plan_demo(root, is_quick=quick, seed=seed)}
        for quick, seed in ((True, 0), (False, 0), (True, 3))
    }
    assert states == {(True, 0): {"done"}, (False, 0): {"to do"}, (True, 3): {"to do"}}
    page = (root / "demo" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Take no difference below for a finding" in page


def test_running_again_changes_nothing_and_takes_no_training(quick_demo: Path, program):
    root = quick_demo / "demo_out"
    before = _bytes_of(root)
    done = program("demo", "--quick", "--json", cwd=quick_demo)
    assert _bytes_of(root) == before
    assert set(json.loads(done.stdout)["results"]) == {"raw", "balanced"}


def test_killed_at_random_points_and_run_again_gives_the_same_bytes(quick_demo: Path, tmp_path: Path, program):
    """kill -9 of the whole process group at four seeded moments, each later than the one before."""
    rng = random.Random(7)
    command = [sys.executable, "-m", "bettersynth", "demo", "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = 0
    for moment in (4, 9, 14, 9):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + moment + rng.random() * 3
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    program("demo", "--quick", cwd=tmp_path)
    assert killed >= 1
    assert _bytes_of(tmp_path / "demo_out") == _bytes_of(quick_demo / "demo_out")
    assert _zip_entries(tmp_path / "demo_out") == _zip_entries(quick_demo / "demo_out")
