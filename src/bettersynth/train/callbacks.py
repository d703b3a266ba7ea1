"""What watches a training run: log files, the live line, TensorBoard, W&B, and whatever an experiment hands in."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import MissingExtraError
from bettersynth.core.lang import t

LOG_FILE = "train_log.jsonl"
KIT_LOGS = {1: ("pretrain.log",), 2: ("finetuning.log", "finetune.log")}
"""Text logs by stage: the kit's script writes finetuning.log, its packing rules ask for finetune.log; we write both."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of ``train_log.jsonl``: means over the steps since the line before.

    Attributes:
        step: optimiser steps done. epoch: samples seen / samples in the data.
        loss: by the configured normalisation. lr: rate of this step. grad_norm: before clipping.
        samples_seen, tokens: totals. samples_per_s, tokens_per_s: since this process started, over all devices.
        wall_s: seconds of training in all.
        memory_bytes: the most that the device has held so far; on a CPU the most that the process was resident with.
        mfu: model FLOP utilisation, where the card's peak and the model's arithmetic are known.
        parts: means of the parts of a joint loss, by name; they become keys of the line.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    samples_seen: int
    tokens: int
    samples_per_s: float
    wall_s: float
    tokens_per_s: float = 0.0
    memory_bytes: int = 0
    mfu: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """The record as one flat object."""
        values = asdict(self)
        return {
            **{key: value for key, value in values.items() if key != "parts" and value is not None},
            **values["parts"],
        }

    def scalars(self) -> dict[str, float]:
        """What trackers draw."""
        names = ("loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "memory_bytes", "mfu")
        found = {name: getattr(self, name) for name in names}
        return {**{name: value for name, value in found.items() if value is not None}, **self.parts}


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is about to be trained; ``first_step`` is above 0 for a continued run."""

    name: str
    stage: int
    out: Path
    total_steps: int
    total_samples: int
    first_step: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepView:
    """A finished step as a probe sees it. ``model`` must be left as it was found.

    ``average``: the moving average of the weights (:class:`bettersynth.train.ema.Average`), if one is kept.
    """

    step: int
    total_steps: int
    loss: float
    model: nn.Module
    average: Any = None


class Callback:
    """Base of all watchers; every method does nothing."""

    def on_note(self, text: str) -> None:
        """Something the user should know: rows sampled away, bad samples, a damaged state passed over."""

    def on_start(self, info: RunInfo) -> None:
        """Before the first step of this process."""

    def on_step(self, view: StepView) -> None:
        """After every step."""

    def on_log(self, record: LogRecord) -> None:
        """Every ``logging_steps`` steps and after the last one."""

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """After a validation."""

    def on_pictures(self, step: int, path: Path) -> None:
        """After a grid of pictures is on disk."""

    def on_save(self, step: int, folder: Path) -> None:
        """After a resumable state is on disk."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """After the last step; not called when the run is interrupted or fails."""

    def close(self) -> None:
        """Always, at the very end."""


class JsonlLog(Callback):
    """``train_log.jsonl``: the record that everything else is drawn from. Lines after a resumed step are cut off."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._stream: TextIO | None = None

    def on_start(self, info: RunInfo) -> None:
        lines = [json.dumps(line) + "\n" for line in read_log(self._path) if line["step"] <= info.first_step]
        write_atomic(self._path, "".join(lines).encode())
        self._stream = self._path.open("a", encoding="utf-8")

    def on_log(self, record: LogRecord) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(record.line()) + "\n")
            self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log; a half-written last line (after a kill) is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        lines.append(line)
    return lines


class KitLog(Callback):
    """The challenge kit's text logs: one dictionary a line in the words of the original trainer."""

    def __init__(self, folder: Path, stage: int) -> None:
        self._paths = [folder / name for name in KIT_LOGS.get(stage, ("train.log",))]
        self._folder = folder
        self._streams: list[TextIO] = []

    def on_start(self, info: RunInfo) -> None:
        self._streams = [path.open("w", encoding="utf-8") for path in self._paths]
        self._write(
            f"bettersynth {info.name}: stage {info.stage}, {info.total_steps} steps, {info.total_samples} samples"
        )
        self._write(json.dumps(dict(info.settings), sort_keys=True))
        for line in read_log(self._folder / LOG_FILE):
            if line["step"] <= info.first_step:
                self._write(_kit_line(line))

    def on_log(self, record: LogRecord) -> None:
        self._write(_kit_line(record.line()))

    def on_end(self, summary: Mapping[str, Any]) -> None:
        runtime, samples, steps = summary["wall_s"], summary["samples_seen"], summary["steps"]
        last = {
            "train_runtime": round(runtime, 4),
            "train_samples_per_second": round(samples / max(runtime, 1e-9), 3),
            "train_steps_per_second": round(steps / max(runtime, 1e-9), 3),
            "train_loss": summary["mean_loss"],
            "epoch": summary["epoch"],
        }
        self._write(str(last))

    def _write(self, line: str) -> None:
        for stream in self._streams:
            stream.write(line + "\n")
            stream.flush()

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def _kit_line(line: Mapping[str, Any]) -> str:
    shown = {"loss": round(line["loss"], 4), "grad_norm": line["grad_norm"], "learning_rate": line["lr"]}
    return str({**shown, "epoch": round(line["epoch"], 2)})


class TerminalProgress(Callback):
    """A live line on a terminal, else a plain line every few seconds; both on stderr."""

    def __init__(self, stream: TextIO | None = None, every_s: float = 15.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._is_live = self._stream.isatty()
        self._every_s = 0.2 if self._is_live else every_s
        self._shown_at = 0.0
        self._info: RunInfo | None = None

    def on_note(self, text: str) -> None:
        self._line(text, end="\n")

    def on_start(self, info: RunInfo) -> None:
        self._info = info
        self._started = self._shown_at = time.monotonic()
        if info.first_step:
            self._line(t("{name}: continuing after step {step}", name=info.name, step=info.first_step), end="\n")

    def on_log(self, record: LogRecord) -> None:
        info, now = self._info, time.monotonic()
        if info is None or (now - self._shown_at < self._every_s and record.step < info.total_steps):
            return
        self._shown_at = now
        done = record.step - info.first_step
        left_s = (now - self._started) / max(1, done) * (info.total_steps - record.step)
        text = t(
            "{name}: step {step}/{total}, loss {loss}, {rate} samples/s, {left} left",
            name=info.name,
            step=record.step,
            total=info.total_steps,
            loss=f"{record.loss:.4f}",
            rate=f"{record.samples_per_s:.1f}",
            left=show_seconds(left_s),
        )
        self._line(text, end="\n" if not self._is_live or record.step == info.total_steps else "")

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        name = "" if self._info is None else self._info.name
        loss = f"{values['loss']:.4f}"
        self._line(t("{name}: step {step}, held-out loss {loss}", name=name, step=step, loss=loss), end="\n")

    def _line(self, text: str, end: str) -> None:
        lead = "\r\x1b[K" if self._is_live else ""
        self._stream.write(lead + text + end)
        self._stream.flush()


def show_seconds(seconds: float) -> str:
    """A duration as a person reads it.

    >>> show_seconds(75), show_seconds(7265)
    ('1:15', '2:01:05')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class TensorBoardLog(Callback):
    """Scalars for TensorBoard under ``tensorboard/``; needs the extra ``tracking``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def on_start(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=info.first_step + 1 if info.first_step else None)

    def on_log(self, record: LogRecord) -> None:
        for name, value in record.scalars().items():
            self._writer.add_scalar(f"train/{name}", value, record.step)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"validation/{name}", value, step)

    def on_pictures(self, step: int, path: Path) -> None:
        with Image.open(path) as image:
            self._writer.add_image("samples", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandbLog(Callback):
    """A Weights & Biases run under ``wandb/``, offline unless ``WANDB_MODE`` says so. Needs the extra ``wandb``."""

    def __init__(self, folder: Path, project: str = "bettersynth", name: str | None = None) -> None:
        self._folder, self._project, self._name = folder, project, name
        self._run: Any = None

    def on_start(self, info: RunInfo) -> None:
        import wandb  # type: ignore[import-not-found]

        self._run = wandb.init(
            project=self._project,
            name=self._name or info.name,
            dir=str(self._folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(info.settings),
        )

    def on_log(self, record: LogRecord) -> None:
        self._run.log({f"train/{name}": value for name, value in record.scalars().items()}, step=record.step)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({f"validation/{name}": value for name, value in values.items()}, step=step)

    def on_pictures(self, step: int, path: Path) -> None:
        import wandb

        self._run.log({"samples": wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def _need(feature: str, extra: str, module: str) -> None:
    if find_spec(module) is None:
        raise MissingExtraError(feature, extra, missing=module)


def build_callbacks(config: StageConfig, folder: Path) -> list[Callback]:
    """The log writers that ``report_to`` names; the JSON lines and the kit's text logs are always written.

    Raises:
        MissingExtraError: a named tracker is not installed.
    """
    trackers: dict[str, Callable[[], Callback]] = {}
    if "tensorboard" in config.report_to:
        _need("report_to: tensorboard", "tracking", "tensorboard")
        trackers["tensorboard"] = lambda: TensorBoardLog(folder)
    if "wandb" in config.report_to:
        _need("report_to: wandb", "wandb", "wandb")
        unified = config.unified
        names = (unified.wandb_project or "bettersynth", unified.wandb_run_name) if unified else ("bettersynth", None)
        trackers["wandb"] = lambda: WandbLog(folder, *names)
    # The text log copies earlier lines from the JSON lines, which the other one cuts at the resumed step: same lines.
    return [KitLog(folder, config.stage), JsonlLog(folder), *(build() for build in trackers.values())]


class Callbacks(Callback):
    """Several watchers as one."""

    def __init__(self, members: Sequence[Callback]) -> None:
        self._members = list(members)

    def on_note(self, text: str) -> None:
        for member in self._members:
            member.on_note(text)

    def on_start(self, info: RunInfo) -> None:
        for member in self._members:
            member.on_start(info)

    def on_step(self, view: StepView) -> None:
        for member in self._members:
            member.on_step(view)

    def on_log(self, record: LogRecord) -> None:
        for member in self._members:
            member.on_log(record)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        for member in self._members:
            member.on_metrics(step, values)

    def on_pictures(self, step: int, path: Path) -> None:
        for member in self._members:
            member.on_pictures(step, path)

    def on_save(self, step: int, folder: Path) -> None:
        for member in self._members:
            member.on_save(step, folder)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        for member in self._members:
            member.on_end(summary)

    def close(self) -> None:
        for member in self._members:
            member.close()
