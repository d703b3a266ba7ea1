"""Starting the processes of a training: what is said, what is returned, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.train import launch

PROGRAM = """
import os, signal, sys, time
rank, way, folder = int(os.environ["RANK"]), sys.argv[1], sys.argv[2]
open(f"{folder}/{rank}", "w").write(str(os.getpid()))
print("out", rank)
print("err", rank, file=sys.stderr)
if way == "lost" and rank == 0:
    sys.exit(75)
if way in ("fail", "lost") and rank == 1:
    print("error: no such picture\\n  where: x.png", file=sys.stderr)
    sys.exit(1)
if way == "wrong":
    print("error: wrong", file=sys.stderr)
    sys.exit(2)
if way == "killed" and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if way == "stop":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
if way != "done":
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(launch, "PROGRAM", (sys.executable, str(tmp_path / "program.py")))
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return lambda way: launch.launch([way, str(tmp_path)], 2)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(folder: Path) -> bool:
    for _ in range(100):
        if not any(is_running(int((folder / str(rank)).read_text())) for rank in range(2)):
            return True
        time.sleep(0.05)
    return False


def test_only_process_0_speaks(start: Callable[[str], int], capfd: pytest.CaptureFixture[str]) -> None:
    assert start("done") == 0
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("fail", 1, "error: no such picture\n  where: x.png\nsaid by process 2 of 2"),
        ("lost", 1, "error: no such picture\n  where: x.png\nsaid by process 2 of 2"),
        ("wrong", 2, "error: wrong\n"),
    ],
)
def test_a_failure_ends_all_with_one_message(
    start: Callable[[str], int], tmp_path: Path, capfd: pytest.CaptureFixture[str], way: str, code: int, said: str
) -> None:
    assert start(way) == code
    text = capfd.readouterr().err
    assert said in text and text.count("error:") == 1
    assert gone(tmp_path)


def test_a_killed_process_is_named_with_its_signal(start: Callable[[str], int], tmp_path: Path) -> None:
    with pytest.raises(BetterSynthError, match="process 2 of 2 was killed") as caught:
        start("killed")
    assert "SIGKILL" in str(caught.value) and "memory" in str(caught.value)
    assert gone(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_the_starter(start: Callable[[str], int], tmp_path: Path, number: int, code: int) -> None:
    text = f"""
import sys
from bettersynth.train import launch
launch.PROGRAM = {launch.PROGRAM!r}
sys.exit(launch.launch(["stop", {str(tmp_path)!r}], 2))
"""
    starter = subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.DEVNULL)
    for _ in range(400):
        if all((tmp_path / str(rank)).exists() for rank in range(2)):
            break
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(starter.pid, number)
    assert starter.wait(20) == code
    assert gone(tmp_path)


def test_as_many_processes_as_a_step_can_be_dealt_to(
    configure: Callable[..., StageConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(launch, "count_devices", lambda: 3)
    two, four = configure(per_device_batch_size=4), configure(per_device_batch_size=2)  # 8 samples a step
    assert launch.choose_processes(None, [two]) == 2
    assert launch.choose_processes(None, [two, four]) == 2
    assert launch.choose_processes(None, [configure(per_device_batch_size=8)]) == 1
    assert launch.choose_processes(None, [configure(device="cpu")]) == 1
    assert launch.choose_processes(5, [two]) == 5
    with pytest.raises(ConfigError, match="= 9"):
        launch.choose_processes(None, [configure(per_device_batch_size=3, gradient_accumulation_steps=1)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.choose_processes(None, [four]) == 1
