"""The executor when the disk is full or locked, when it is stopped at any write, and when Ctrl-C is pressed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bettersynth.core.artifact import Artifact

PROCESS = """
  - whitespace_normalization_mapper:
  - words_num_filter: {min_num: 3}
  - image_text_similarity_filter: {hf_clip: fake, min_score: null}
  - document_deduplicator:
  - repeat_to_budget_selector: {num_samples: 1100}
"""
# Stops the process, by a signal to itself, at its n-th flush to disk or n-th progress report.
DRIVER = """
import os, signal, sys
from bettersynth.cli import main
from bettersynth.engine import local

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background inherits "ignored"
what, number, sign, *words = sys.argv[1:]
count = 0

def tick(*_):
    global count
    count += 1
    if count == int(number):
        os.kill(os.getpid(), int(sign))

plain = os.fsync
def fsync(handle):
    tick()
    plain(handle)
if what == "fsync":
    os.fsync = fsync
if what == "progress":
    import bettersynth.cli.render as render
    render.Progress.__call__ = tick
code = main.main(words)
print(count, file=sys.stderr)
sys.exit(code)
"""
FILES = ("processed_data.jsonl", "processed_data_stats.jsonl", "quarantine.jsonl", "trace.arrows")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 rows (three shards) without pictures, and a recipe over them."""
    tmp_path = tmp_path_factory.mktemp("disk")
    words = ["a", "red", "blue", "dog", "house", "sign", "says", "STOP"]
    with (tmp_path / "d.jsonl").open("w") as handle:
        for n in range(1200):
            text = " ".join(words[(n * k) % 8] for k in range(1, 3 + n % 7))
            handle.write(json.dumps({"id": str(n), "text": text}) + "\n")
    (tmp_path / "r.yaml").write_text(f"dataset_path: {tmp_path}/d.jsonl\nprocess:{PROCESS}")
    return tmp_path / "r.yaml"


def run(
    recipe: Path, out: Path, *, stop: tuple[str, int, int] = ("", 0, 0), limit: int = 0, workers: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, perhaps with files limited to ``limit`` bytes."""
    words = ["process", str(recipe), "--out", str(out), "--np", str(workers)]
    command = [sys.executable, "-c", DRIVER, *map(str, stop), *words]
    before: Callable[[], None] | None = None
    if limit:
        before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    env = {**os.environ, "BETTERSYNTH_LANG": "en", "BETTERSYNTH_CACHE": str(recipe.parent / "cache")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=before, env=env)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def good(recipe: Path) -> dict[str, bytes]:
    """What an undisturbed run writes; its flushes to disk are counted for the test that kills at each."""
    done = run(recipe, recipe.parent / "good", stop=("fsync", 10**6, 9))
    assert done.returncode == 0 and int(done.stderr.split()[-1]) > 40, done.stderr
    return contents(recipe.parent / "good")


def test_killed_at_any_write(recipe: Path, good: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Each run is killed a little later, on top of what the ones before it have left; the last ones while exporting.
    for number in (1, 9, 16, 20, 7, 3):
        killed = run(recipe, out, stop=("fsync", number, signal.SIGKILL))
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr
        assert killed.returncode == 0 or not Artifact.exists(out)
    assert run(recipe, out).returncode == 0
    assert contents(out) == good and not [path for path in out.rglob(".*") if path.name != ".work"]


@pytest.mark.parametrize(("limit", "workers"), [(2000, 2), (60_000, 1)])
def test_a_full_disk_says_so_and_the_run_can_go_on(
    recipe: Path, good: dict[str, bytes], tmp_path: Path, limit: int, workers: int
) -> None:
    out = tmp_path / "out"
    failed = run(recipe, out, limit=limit, workers=workers)
    assert failed.returncode == 1 and "cannot write" in failed.stderr and "File too large" in failed.stderr
    assert "internal error" not in failed.stderr and "Traceback" not in failed.stderr
    assert not Artifact.exists(out)
    assert run(recipe, out, workers=workers).returncode == 0
    assert contents(out) == good


def test_ctrl_c_in_the_middle(recipe: Path, good: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = run(recipe, out, stop=("progress", 4, signal.SIGINT), workers=2)
    assert stopped.returncode == 130 and "run the same command again to continue" in stopped.stderr
    assert "Traceback" not in stopped.stderr and not Artifact.exists(out)
    assert run(recipe, out, workers=2).returncode == 0
    assert contents(out) == good


def test_two_runs_on_one_folder(recipe: Path, good: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "bettersynth", "process", str(recipe), "--out", str(out), "--np", "1"]
    env = {**os.environ, "BETTERSYNTH_LANG": "en"}
    both = [
        subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) for _ in "ab"
    ]
    told = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 1])  # the second waits for nothing: it is refused, or finds the work done
    assert codes == [0, 0] or any("another run is using this folder" in text for text in told)
    assert contents(out) == good


def test_a_folder_that_may_not_be_written(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    # Root may write anywhere but into the kernel's own files.
    out = Path("/proc/out") if os.getuid() == 0 else tmp_path / "locked" / "out"
    done = run(recipe, out)
    assert done.returncode == 1 and "cannot write to the output folder" in done.stderr and "--out" in done.stderr
    assert not out.exists()
