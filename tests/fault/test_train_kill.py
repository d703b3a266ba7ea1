"""Training under kill -9, Ctrl-C and two processes: the same bits as an undisturbed run in one process."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parent.parent / "unit" / "train" / "fake_family.py"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("train_fault")
    rng = random.Random(3)
    rows = []
    for number in range(30):
        turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "b" * rng.randrange(1, 9)}]
        Image.fromarray(np.full((4, 4, 3), number * 8, dtype=np.uint8)).save(folder / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    for name in ("LLM/gemma/gemma-fake", "OpenAI/clip-fake", "OpenAI/openclip-fake"):
        (folder / "zoo" / name).mkdir(parents=True)
    return {
        "stage": 2,
        "data": str(folder / "data.json"),
        "model_zoo": str(folder / "zoo"),
        "lr": 0.05,
        "per_device_batch_size": 2,
        "global_batch": 8,
        "save_steps": 3,
        "seed": 3,
        "epochs": 3,
    }


Run = Callable[..., list[int]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a job in its own process (one per rank); returns the exit codes."""
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def send(
        settings: dict[str, Any], out: Path, kill_at: int = 0, ranks: Sequence[dict[str, str]] = ({},)
    ) -> list[int]:
        out.parent.mkdir(parents=True, exist_ok=True)
        job = {"settings": settings, "out": str(out), "kill_at": kill_at, "ranks": list(ranks)}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return list(json.loads(server.stdout.readline()))

    with server:
        yield send
        server.stdin.close()


def group(processes: int) -> list[dict[str, str]]:
    """The environments of so many processes that find each other."""
    if processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**common, "RANK": str(rank)} for rank in range(processes)]


def said(out: Path, rank: int = 0) -> str:
    return Path(f"{out}.{rank}.txt").read_text()


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run: 12 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(settings, out) == [0]
    return out


def test_killed_twice_and_run_again(settings: dict[str, Any], run: Run, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for step in (2, 8):
        assert run(settings, out, step) == [-signal.SIGKILL]
        assert not (out / "manifest.json").exists()
    assert run(settings, out) == [0]
    assert losses(out) == losses(whole)
    assert said(out) == manifest(whole)["digest"]


def test_interrupted_run_exits_130_and_continues(
    settings: dict[str, Any], run: Run, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(settings, out, -4) == [130]
    assert "run the same command again" in said(out)
    assert run(settings, out) == [0]
    assert losses(out) == losses(whole)
    assert manifest(out)["digest"] == manifest(whole)["digest"]


@pytest.mark.parametrize("normalization", ["tokens", "micro_batch"])
def test_two_processes_equal_one(settings: dict[str, Any], run: Run, tmp_path: Path, normalization: str) -> None:
    settings = {**settings, "loss_normalization": normalization, "device": "cpu", "epochs": 1}
    one, two = tmp_path / "single" / "run", tmp_path / "pair" / "run"
    assert run(settings, two, ranks=group(2)) == [0, 0]
    assert run(settings, one) == [0]
    assert said(two, 0) == said(two, 1)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    for key in ("rows_trained", "samples_seen", "tokens", "target_tokens", "steps"):
        assert manifest(two)["facts"][key] == manifest(one)["facts"][key]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_a_killed_run_continues_in_another_number_of_processes(
    settings: dict[str, Any], run: Run, whole: Path, tmp_path: Path, before: int, after: int
) -> None:
    settings, out = {**settings, "device": "cpu"}, tmp_path / "run"
    assert -signal.SIGKILL in run(settings, out, 5, ranks=group(before))
    assert run(settings, out, ranks=group(after)) == [0] * after
    assert losses(out) == pytest.approx(losses(whole), rel=1e-4)
    assert manifest(out)["facts"]["samples_seen"] == manifest(whole)["facts"]["samples_seen"]


def test_bad_pictures_are_counted_once_by_two_processes(settings: dict[str, Any], run: Run, tmp_path: Path) -> None:
    rows = json.loads(Path(settings["data"]).read_text())
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "JPEG")
    for number in (4, 11):
        (tmp_path / f"{number}.jpg").write_bytes(stream.getvalue()[:1500])
        rows[number]["image"] = str(tmp_path / f"{number}.jpg")
    (tmp_path / "data.json").write_text(json.dumps(rows))
    settings = {**settings, "data": str(tmp_path / "data.json"), "max_bad_ratio": 0.2, "device": "cpu"}
    settings["image_root"] = str(Path(settings["model_zoo"]).parent)
    out = tmp_path / "run"
    assert run(settings, out, ranks=group(2)) == [0, 0]
    facts = manifest(out)["facts"]
    assert facts["rows_trained"] == 28
    assert facts["samples_seen"] == 84
    keys = [json.loads(line)["key"] for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert keys == ["4", "11"]
