"""What a training technique may do: reorder samples, wrap the loss, act after a step. One file each in ``techniques``.

A technique's file defines ``Settings`` (a pydantic model: its keys in the preset) and ``TECHNIQUE``, a subclass of
:class:`Technique`. Nothing is registered; the file's name is the name in the preset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from bettersynth.config.load import Document, check, raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import Registry
from bettersynth.models.family import Batch, LossOutput, ModelFamily
from bettersynth.train.distributed import Devices
from bettersynth.train.examples import TrainingSet
from bettersynth.train.sampler import OrderSpec

TECHNIQUES = Registry("technique", "bettersynth.train.techniques", "bettersynth.techniques")

LossFn = Callable[[nn.Module, Batch], LossOutput]
BatchSource = Callable[[Iterable[Sequence[int]]], Iterator[tuple[tuple[int, ...], Batch]]]


@dataclass(frozen=True)
class TechniqueRun:
    """The run a technique works in.

    Attributes:
        model: the model at its start.
        batches: makes batches on the device from lists of sample indices, and gives back the usable indices of each.
        out: folder of the run.
        note: tells the user something.
        is_lockstep: whether all processes must make the same passes through the model.
    """

    config: StageConfig
    family: ModelFamily
    model: nn.Module
    parameters: Sequence[tuple[str, nn.Parameter]]
    data: TrainingSet
    spec: OrderSpec
    devices: Devices
    batches: BatchSource
    out: Path
    note: Callable[[str], None]
    is_lockstep: bool = False

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part of the work on some items; in lockstep each does all of it."""
        return items if self.is_lockstep else items[self.devices.rank :: self.devices.world]

    def gather(self, part: Any) -> list[Any]:
        """The parts of the work, known to every process."""
        return [part] if self.is_lockstep else self.devices.gather(part)


class Technique:
    """Base of all techniques; every method leaves things as they are.

    Attributes:
        needs: optional methods of the family that it calls.
        is_detailed: whether the loss must come with :class:`TargetDetail`.
        window: steps after which :meth:`reorder` is asked again, or None.
        is_lockstep: whether it makes the same passes through the model in every process, whatever is in the batch, and
            keeps nothing that is as large as the weights; only then can it be used while weights are split.
    """

    is_lockstep: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    is_detailed: ClassVar[bool] = False

    def __init__(self, settings: Any, run: TechniqueRun) -> None:
        self.settings, self.run = settings, run

    @property
    def window(self) -> int | None:
        return None

    def order(self, order: list[int]) -> list[int]:
        """The samples in training order, rearranged. Called once per process, after a state has been loaded."""
        return order

    def reorder(self, order: list[int], step: int) -> list[int]:
        """The order with the samples from ``step`` on, ``window`` steps, chosen anew. A pure function of the state."""
        return order

    def loss(self, inner: LossFn, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """Loss of one forward pass; ``inner`` is the loss without this technique."""
        return inner(model, batch)

    def after_step(self, step: int) -> None:
        """After the optimiser's step number ``step`` (from 1)."""

    def state(self) -> dict[str, Any]:
        """What must be saved to continue exactly: tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put :meth:`state` back."""

    def finish(self) -> None:
        """After the last step, before the weights are written."""

    def facts(self) -> dict[str, Any]:
        """What the result's manifest says about it."""
        return {}


def technique_settings(techniques: Mapping[str, Mapping[str, Any]], *, where: str = "techniques") -> dict[str, Any]:
    """Check the ``techniques`` of a stage; name to settings.

    Raises:
        ConfigError, ConfigErrors: unknown techniques, unknown keys, wrong values, all at once.
    """
    problems: list[BetterSynthError] = []
    settings: dict[str, Any] = {}
    for name, given in techniques.items():
        try:
            TECHNIQUES.check(name, where=where)
        except ConfigError as error:
            problems.append(error)
            continue
        module = TECHNIQUES.module(name)
        found, wrong = check(module.Settings, dict(given or {}), Document(f"{where}.{name}", dict(given or {})))
        problems.extend(wrong)
        settings[name] = found
    raise_all(problems, where=where)
    return settings


class Techniques:
    """All techniques of a run, in the preset's order; the first one is the outermost around the loss."""

    def __init__(self, run: TechniqueRun) -> None:
        self._run = run
        self._all: dict[str, Technique] = {}
        for name, settings in technique_settings(run.config.techniques).items():
            cls = TECHNIQUES.module(name).TECHNIQUE
            needs = [*cls.needs, *(["detailed_loss"] if cls.is_detailed else [])]
            lacking = [method for method in needs if not hasattr(run.family, method)]
            if lacking:
                raise ConfigError(
                    t("the family '{family}' cannot do this", family=run.family.name),
                    where=f"techniques.{name}",
                    got=t("it lacks {names}", names=", ".join(lacking)),
                )
            self._all[name] = cls(settings, run)
        self._is_detailed = any(technique.is_detailed for technique in self._all.values())

    @property
    def window(self) -> int | None:
        """Steps after which the order is asked for again.

        Raises:
            ConfigError: two techniques want to choose the samples.
        """
        windows = {name: technique.window for name, technique in self._all.items() if technique.window}
        if len(windows) > 1:
            raise ConfigError(t("only one technique can choose samples while training"), got=", ".join(windows))
        return next(iter(windows.values()), None)

    def order(self, order: list[int]) -> list[int]:
        """See :meth:`Technique.order`."""
        for technique in self._all.values():
            changed = technique.order(list(order))
            if len(changed) != len(order):
                raise BetterSynthError(t("a technique changed how many samples are shown; this is a defect"))
            order = changed
        return order

    def reorder(self, order: list[int], step: int) -> list[int]:
        """See :meth:`Technique.reorder`."""
        for technique in self._all.values():
            if technique.window:
                order = technique.reorder(order, step)
        return order

    def loss(self, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """The loss with all techniques around it."""
        family: Any = self._run.family
        chain: LossFn = family.detailed_loss if self._is_detailed else family.loss
        for technique in reversed(self._all.values()):
            chain = _wrapped(technique, chain, indices)
        return chain(model, batch)

    def after_step(self, step: int) -> None:
        """See :meth:`Technique.after_step`."""
        for technique in self._all.values():
            technique.after_step(step)

    def state(self) -> dict[str, Any]:
        """States by name."""
        return {name: technique.state() for name, technique in self._all.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put :meth:`state` back."""
        for name, technique in self._all.items():
            technique.load_state(state[name])

    def finish(self) -> None:
        """See :meth:`Technique.finish`."""
        for technique in self._all.values():
            technique.finish()

    def facts(self) -> dict[str, Any]:
        """Facts by name, of those that have any."""
        found = {name: technique.facts() for name, technique in self._all.items()}
        return {name: facts for name, facts in found.items() if facts}


def _wrapped(technique: Technique, inner: LossFn, indices: Sequence[int]) -> LossFn:
    return lambda model, batch: technique.loss(inner, model, batch, indices)


def sample_means(output: LossOutput, samples: int) -> torch.Tensor:
    """(samples,) mean loss over each sample's targets, from a loss with details; differentiable."""
    detail = output.detail
    assert detail is not None  # is_detailed asks for it
    zeros = detail.losses.new_zeros(samples)
    sums = zeros.index_add(0, detail.owner, detail.losses)
    counts = zeros.index_add(0, detail.owner, torch.ones_like(detail.losses))
    return sums / counts.clamp(min=1)


def start_losses(run: TechniqueRun) -> torch.Tensor:
    """(samples,) mean loss of every sample under the model as it is; every process computes a part of it.

    A sample whose picture is damaged gets the mean of the others: training itself names and counts it.
    """
    family: Any = run.family
    if not hasattr(family, "detailed_loss"):
        raise ConfigError(t("the family '{family}' cannot do this", family=family.name), got="by: loss")
    by_length = sorted(range(len(run.data.examples)), key=lambda index: (run.data.examples.num_tokens[index], index))
    size = run.spec.micro_batch
    chunks = [by_length[at : at + size] for at in range(0, len(by_length), size)]
    mine: dict[int, float] = {}
    was_training = run.model.training
    run.model.eval()
    with torch.no_grad():
        for indices, batch in run.batches(run.share(chunks)):
            values = sample_means(family.detailed_loss(run.model, batch), len(indices)).tolist()
            mine |= dict(zip(indices, values, strict=True))
    run.model.train(was_training)
    known = {index: value for part in run.gather(mine) for index, value in part.items()}
    mean = sum(known.values()) / max(1, len(known))
    return torch.tensor([known.get(index, mean) for index in range(len(by_length))], dtype=torch.float64)
