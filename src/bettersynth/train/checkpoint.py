"""Resumable states: what the loop needs to continue as if it had never stopped; a kill leaves no half of one."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bettersynth.core.artifact import sync_folder, write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_bytes, digest_file
from bettersynth.core.lang import t
from bettersynth.train.distributed import Devices
from bettersynth.train.shards import FOLDER as SHARDS

STATE_FILE = "state.pt"
DONE_FILE = "state.json"
_PREFIX = "checkpoint-"


@dataclass
class Counters:
    """Where the run is. All numbers are totals since its start, continuations included.

    Attributes:
        step: optimiser steps done.
        samples: samples the loss was taken over, repetitions counted.
        tokens: tokens in them, image tokens included.
        targets: target tokens in them.
        skipped_steps: steps without an update: fp16 overflow, or every picture damaged.
        bad: index to bad-picture row found while training.
        wall_s: seconds of training; cpu_s: processor seconds of it.
        window: loss sum and steps since the last log line. last_loss, loss_total: loss of the last step, sum of all.
        parts: of a joint loss, sum and denominator of each part since the last log line.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    targets: int = 0
    skipped_steps: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    window: list[float] = field(default_factory=lambda: [0.0, 0.0])
    last_loss: float = 0.0
    loss_total: float = 0.0
    bad: dict[int, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, list[float]] = field(default_factory=dict)


def rng_state() -> dict[str, Any]:
    """States of the global generators of torch and Python."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(words), gauss]}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put the global generators back where :func:`rng_state` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def pack_state(
    parameters: Sequence[tuple[str, nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    counters: Counters,
) -> dict[str, Any]:
    """Everything that changes while training, as tensors and plain values."""
    return {
        "parameters": {name: parameter.detach() for name, parameter in parameters},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "rng": rng_state(),
        "counters": asdict(counters),
    }


def unpack_state(
    state: Mapping[str, Any],
    parameters: Sequence[tuple[str, nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
) -> Counters:
    """Put a packed state back. Raises DataError when it belongs to another set of parameters."""
    saved = state["parameters"]
    if list(saved) != [name for name, _ in parameters]:
        raise DataError(t("the saved state belongs to another model"), hint=t("use another output folder"))
    for name, parameter in parameters:
        parameter.data.copy_(saved[name])
    optimizer.load_state_dict(state["optimizer"])
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    restore_rng(state["rng"])
    return Counters(**state["counters"])


def temporary_folder(folder: Path, step: int) -> Path:
    """Where ``checkpoint-STEP`` is written before it gets its name."""
    return folder / f".{_PREFIX}{step}.tmp"


def begin_state(folder: Path, step: int) -> None:
    """Make an empty :func:`temporary_folder`. Raises DataError: the folder is read-only or the disk is full."""
    temporary = temporary_folder(folder, step)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise _cannot_save(folder, error) from error


def _cannot_save(where: Path, error: Exception) -> DataError:
    return DataError(
        t("cannot save the training state"),
        where=str(where),
        got=str(error).splitlines()[0],
        hint=t("choose a writable output folder with free space"),
    )


def save_state(
    folder: Path, step: int, state: Mapping[str, Any], keep: int, shards: Mapping[str, str] | None = None
) -> Path:
    """Write ``checkpoint-STEP`` after :func:`begin_state`, and remove all but the newest ``keep``.

    The folder gets its name only when all its files are on disk, so a folder of that name is whole.

    Args:
        shards: digests of what lies in the folder's ``shards`` already.

    Raises:
        DataError: the folder is read-only or the disk is full.
    """
    target = folder / f"{_PREFIX}{step}"
    temporary = temporary_folder(folder, step)
    try:
        torch.save(dict(state), temporary / STATE_FILE)
        with (temporary / STATE_FILE).open("rb+") as handle:
            os.fsync(handle.fileno())
        done = {"step": step, "digest": digest_file(temporary / STATE_FILE), "shards": dict(shards or {})}
        write_atomic(temporary / DONE_FILE, json.dumps(done).encode())
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise _cannot_save(target, error) from error
    for old in saved_states(folder)[keep:]:
        shutil.rmtree(old)
    return target


def saved_states(folder: Path) -> list[Path]:
    """Whole resumable states in a folder, newest first."""
    found = [
        (int(path.name.removeprefix(_PREFIX)), path)
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdigit() and (path / DONE_FILE).is_file()
    ]
    return [path for _, path in sorted(found, reverse=True)]


def load_newest(folder: Path, devices: Devices) -> tuple[dict[str, Any] | None, Path, list[Path]]:
    """The newest undamaged state or None, its folder, and the damaged ones that were passed over; the same in all
    processes.

    Raises:
        ConfigError: not every process sees the folder that process 0 sees.
    """
    damaged: list[Path] = []
    found: Path | None = None
    for path in saved_states(folder) if devices.is_main else ():
        if _is_whole(path):
            found = path
            break
        damaged.append(path)
    found, damaged = devices.gather((found, damaged))[0]
    seen = devices.gather(found is None or (found / STATE_FILE).is_file())
    if not all(seen):
        raise ConfigError(t("the processes do not see the same output folder"), where=str(folder))
    if found is None:
        return None, folder, damaged
    # Mapped, so that a process that keeps a part of the tensors reads no more than that.
    is_mapped = devices.world > 1
    state = torch.load(found / STATE_FILE, map_location="cpu", weights_only=True, mmap=is_mapped)
    return state, found, damaged


def _is_whole(path: Path) -> bool:
    try:
        done = json.loads((path / DONE_FILE).read_text(encoding="utf-8"))
        digests = {STATE_FILE: done["digest"]}
        digests |= {f"{SHARDS}/{name}": digest for name, digest in done.get("shards", {}).items()}
        return all(digest_file(path / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError):
        return False


def remove_states(folder: Path) -> None:
    """Delete all resumable states and leftovers of an interrupted save."""
    for path in [*folder.glob(f"{_PREFIX}*"), *folder.glob(f".{_PREFIX}*.tmp")]:
        shutil.rmtree(path, ignore_errors=True)


def weights_digest(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Digest of named tensors: equal only when every bit is."""
    parts = []
    for name, tensor in sorted(parameters, key=lambda item: item[0]):
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {digest_bytes(flat.numpy().tobytes())}")
    return digest_bytes("\n".join(parts).encode())
