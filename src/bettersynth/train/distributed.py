"""One process or many: who am I, and sums over all processes. Started by torchrun; one process needs nothing."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

_BUCKET_ELEMENTS = 16 * 2**20
"""Gradients are summed in buckets of this many numbers (64 MB of float32) to bound the extra memory."""


@dataclass(frozen=True)
class Devices:
    """This process among all: its rank, their number, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            at = 0
            for tensor in bucket:
                tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
                at += tensor.numel()

    def broadcast_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by those of process 0, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, known to each of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and (filled + tensor.numel() > _BUCKET_ELEMENTS or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.numel()
    if bucket:
        yield bucket


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` stands for.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if wanted == "auto":
        return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(
            t("unknown device"), where="device", got=wanted, expected="auto, cpu, cuda, cuda:N"
        ) from error
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise ConfigError(
                t("the device is not there"), where="device", got=wanted, hint=t("set device to auto or cpu")
            )
        return torch.device("cuda", index)
    return device


@contextmanager
def open_devices(wanted: str) -> Iterator[Devices]:
    """Join the process group that torchrun announces in the environment, or be the only process.

    A group that exists already is used.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(wanted, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Devices(0, 1, device)
        return
    if not dist.is_initialized():
        # Tensors on the host are exchanged, too: offloaded gradients, states, notes between the processes. The group
        # stays until the process ends, as a second one at the same address could meet the end of the first.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_close)
    yield Devices(dist.get_rank(), dist.get_world_size(), device)


_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Read error", "Write error")
"""What gloo says when a neighbour is gone; it has no kind of error for that."""


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error of an exchange means that another process has ended."""
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _BROKEN)


def _close() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
