"""States of a training whose weights are split: every process writes its part, any number of processes reads them.

``checkpoint-STEP/shards`` is a folder of torch.distributed.checkpoint, the tensors in it are whole ones by name, so a
state continues in another number of processes, or in one that holds everything. What is not a tensor of the
parameters' shapes (counters, schedules, generators) stays in ``state.pt``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.train.distributed import Devices
from bettersynth.train.optim import NamedParameters

FOLDER = "shards"
_AWAY = "in shards"
"""Stands in ``state.pt`` for a tensor that is in the shards."""

Layout = Callable[[str, torch.Tensor], torch.Tensor]
"""(parameter's name, this process's part of a tensor of its shape) -> the tensor as the library knows it."""


def _slots(state: Mapping[str, Any], owner: Mapping[int, str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(parameter's name, the mapping that holds a value of its shape, the value's key) for everything in a state."""
    for key in ("parameters", "average"):
        for name in state.get(key) or ():
            yield name, state[key], name
    for number, values in state["optimizer"]["state"].items():
        for key in values:
            if key != "step":
                yield owner[number], values, key


def _owners(parameters: NamedParameters, optimizer: torch.optim.Optimizer) -> dict[int, str]:
    """Number of a parameter in the optimiser's state to its name."""
    names = {id(parameter): name for name, parameter in parameters}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {number: names[id(parameter)] for number, parameter in enumerate(ordered)}


def _flat(state: Mapping[str, Any], owner: Mapping[int, str]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """:func:`_slots` with a name in the folder for each: where it is used, then whose it is."""
    for name, holder, key in _slots(state, owner):
        kind = "weight" if holder is state["parameters"] else "average" if holder is state.get("average") else key
        yield f"{kind}/{name}", name, holder, key


def write(
    state: dict[str, Any],
    folder: Path,
    parameters: NamedParameters,
    optimizer: torch.optim.Optimizer,
    layout: Layout,
    devices: Devices,
) -> dict[str, str]:
    """Move the tensors of a state into ``folder/shards``, from all processes; called by all of them.

    Returns:
        Digest by file name, the same in every process.

    Raises:
        DataError: in every process, when one of them could not write.
        ConfigError: a process does not see the folder.
    """
    devices.barrier()  # process 0 has made the folder
    seen = devices.gather(folder.is_dir())
    if not all(seen):
        raise ConfigError(t("the processes do not see the same output folder"), where=str(folder))
    owner = _owners(parameters, optimizer)
    kept = state["optimizer"]  # its mappings are the optimiser's own
    state["optimizer"] = {**kept, "state": {number: dict(values) for number, values in kept["state"].items()}}
    tensors = {}
    for place, name, holder, key in _flat(state, owner):
        tensors[place] = layout(name, holder[key])
        holder[key] = _AWAY
    error = None
    try:
        with _quiet():
            dcp.save(tensors, checkpoint_id=str(folder / FOLDER))
    except (OSError, RuntimeError, dcp.api.CheckpointException) as caught:
        error = str(caught).strip().splitlines()[-1]
    errors = [text for text in devices.gather(error) if text is not None]
    if errors:
        raise DataError(
            t("cannot save the training state"),
            where=str(folder),
            got=errors[0],
            hint=t("choose a writable output folder with free space"),
        )
    own = [folder / FOLDER / ".metadata"] if devices.is_main else []
    own += sorted((folder / FOLDER).glob(f"__{devices.rank}_*"))
    parts = devices.gather({path.name: digest_file(path) for path in own})
    return {name: digest for part in parts for name, digest in part.items()}


def read(
    state: dict[str, Any],
    folder: Path,
    parameters: NamedParameters,
    optimizer: torch.optim.Optimizer,
    layout: Layout,
) -> None:
    """Put the tensors of ``folder/shards`` back into a state, as parts that are as this process's parameters."""
    own = dict(parameters)
    targets, places = {}, []
    for place, name, holder, key in _flat(state, _owners(parameters, optimizer)):
        if name not in own:
            raise DataError(t("the saved state belongs to another model"), hint=t("use another output folder"))
        holder[key] = torch.empty_like(own[name].detach())
        targets[place] = layout(name, holder[key])
        places.append(place)
    try:
        with _quiet():
            dcp.load(targets, checkpoint_id=str(folder / FOLDER))
    except dcp.api.CheckpointException as error:
        raise DataError(
            t("the saved state belongs to another model"), where=str(folder), hint=t("use another output folder")
        ) from error


def is_away(state: Mapping[str, Any]) -> bool:
    """Whether the tensors of a state lie in shards."""
    return any(isinstance(value, str) for value in state["parameters"].values())


def cut(
    state: dict[str, Any],
    parameters: NamedParameters,
    optimizer: torch.optim.Optimizer,
    part: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Replace the whole tensors of a state by this process's parts."""
    own = dict(parameters)
    for _, name, holder, key in _flat(state, _owners(parameters, optimizer)):
        if name in own:
            holder[key] = part(name, holder[key])


class _quiet(warnings.catch_warnings):  # noqa: N801 - used like a function
    """The library's remarks about itself are of no use to who trains."""

    def __enter__(self) -> None:
        self._level = logging.getLogger("torch.distributed.checkpoint").level
        logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
        super().__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        logging.getLogger("torch.distributed.checkpoint").setLevel(self._level)
