"""Logs, the live line, and trackers."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import MissingExtraError
from bettersynth.train import callbacks
from bettersynth.train.callbacks import Callback, LogRecord, RunInfo, TerminalProgress, read_log
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def info(tmp_path: Path, first_step: int = 0) -> RunInfo:
    return RunInfo("run", 1, tmp_path, 10, 80, first_step)


def record(step: int) -> LogRecord:
    return LogRecord(step, step / 10, 1.5, 0.1, 2.0, step * 8, step * 99, 12.34, step * 2.0)


def test_progress_line_on_a_terminal(tmp_path: Path) -> None:
    stream = Terminal()
    progress = TerminalProgress(stream)
    progress.on_start(info(tmp_path))
    progress.on_log(record(10))
    text = stream.getvalue()
    assert "\r" in text
    assert "run: step 10/10, loss 1.5000, 12.3 samples/s, 0:00 left\n" in text


def test_plain_lines_are_rare_without_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = TerminalProgress(stream, every_s=1000)
    progress.on_start(info(tmp_path, first_step=2))
    for step in range(3, 11):
        progress.on_log(record(step))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "continuing after step 2" in lines[0]
    assert "step 10/10" in lines[1]
    assert "\r" not in stream.getvalue()


def test_half_written_last_log_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "train_log.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_log(path) == [{"step": 1}]
    assert read_log(tmp_path / "none.jsonl") == []


def test_tensorboard_scalars(fake_family: ModuleType, configure: Configure, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_stage(configure(report_to=["tensorboard"]), out=tmp_path / "run", progress=Callback())
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = [scalar.value for scalar in events.Scalars("train/loss")]
    logged = [line["loss"] for line in read_log(tmp_path / "run" / "train_log.jsonl")]
    assert shown == pytest.approx(logged)


@pytest.mark.parametrize(("tracker", "extra"), [("wandb", "wandb"), ("tensorboard", "tracking")])
def test_missing_tracker_is_named_before_anything_runs(
    fake_family: ModuleType,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tracker: str,
    extra: str,
) -> None:
    monkeypatch.setattr(callbacks, "find_spec", lambda name: None if name == tracker else find_spec(name))
    with pytest.raises(MissingExtraError, match=f"'{extra}' extra"):
        run_stage(configure(report_to=["jsonl", tracker]), out=tmp_path / "run", progress=Callback())
    assert not (tmp_path / "run").exists()


def test_wandb_runs_offline(
    fake_family: ModuleType, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, object]] = []

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            calls.append(("log", (step, sorted(values))))

        def finish(self) -> None:
            calls.append(("finish", None))

    stub = ModuleType("wandb")
    stub.init = lambda **options: calls.append(("init", options["mode"])) or Run()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr(callbacks, "find_spec", lambda name: name)
    run_stage(configure(report_to=["wandb"]), out=tmp_path / "run", progress=Callback())
    assert calls[0] == ("init", "offline")
    names = ("grad_norm", "loss", "lr", "memory_bytes", "samples_per_s", "tokens_per_s")
    assert calls[1] == ("log", (1, [f"train/{name}" for name in names]))
    assert len(calls) == 8
    assert calls[-1] == ("finish", None)
