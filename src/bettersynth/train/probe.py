"""An early look at alignment in stage 1: does the model use its pictures yet?

At 10, 20 and 50 % of the steps, captions of samples that training has not shown yet are scored with their own picture
and with three pictures of other samples. A model whose projector carries something finds a caption likelier with its
own picture; one that only learns how captions sound does not. Nothing of the training changes: not a bit of any weight.

The held-out samples are the last ones in the order of training that have one picture each. Where the data is repeated,
those shown latest stand in for those never shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import BetterSynthError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.train.callbacks import read_log
from bettersynth.train.technique import TechniqueRun, sample_means

PROBE_FILE = "probe.jsonl"
POINTS = (0.1, 0.2, 0.5)
HELD_OUT = 64
OTHERS = 3
_Z = 1.959964
_SPIKE = 5.0

_CHANCE, _SURE = 0.5, 0.9
"""Share of comparisons that a model wins which ignores its pictures; and from where on it hardly confuses any. The
latter was set on the demo world: runs below it ended at chance in reading, see `benchmarks/alignment.py`."""

Verdict = Literal["aligned", "weak", "not yet"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look found.

    Attributes:
        share: of all steps, when it was taken.
        retrieval: share of comparisons in which a caption is likelier with its own picture than with another's.
        low: lower end of its 95 % interval (Wilson); a model that ignores pictures has 0.5.
        comparisons: how many there were.
        margin: nats per token by which the own picture is better, on average.
        held_out_loss: mean loss of the held-out captions with their own pictures.
        loss, first_loss: mean training loss of the last and of the first tenth of the steps so far.
        grad_norm: median over the steps so far. spikes: share of steps above five times that.
        verdict: of ``low``, see :func:`verdict_of`.
    """

    step: int
    share: float
    retrieval: float
    low: float
    comparisons: int
    margin: float
    held_out_loss: float
    loss: float
    first_loss: float
    grad_norm: float
    spikes: float
    verdict: Verdict


def wilson_low(hits: int, trials: int) -> float:
    """Lower end of the 95 % Wilson interval of a share.

    >>> round(wilson_low(60, 100), 3)
    0.502
    """
    if not trials:
        return 0.0
    share, z2 = hits / trials, _Z**2
    centre = share + z2 / (2 * trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return (centre - half) / (1 + z2 / trials)


def verdict_of(low: float) -> Verdict:
    """``aligned`` from 0.9 on, ``weak`` above what ignoring the pictures gives, else ``not yet``.

    Args:
        low: lower end of the interval of the share of won comparisons.
    """
    if low <= _CHANCE:
        return "not yet"
    return "aligned" if low >= _SURE else "weak"


class AlignmentProbe:
    """Takes the readings of a run and, if asked, ends a run that ignores its pictures at half time.

    Args:
        stop: end the run at the last point when it still ignores them.
    """

    def __init__(self, run: TechniqueRun, order: Sequence[int], *, stop: bool) -> None:
        self._run, self._stop = run, stop
        self._path = run.out / PROBE_FILE
        self._held_out = _held_out(run, order)
        steps = run.spec.steps
        self._points = {max(1, round(share * steps)): share for share in POINTS}
        self._losses: list[float] = []
        self._norms: list[float] = []

    def state(self) -> dict[str, Any]:
        """What a continued run needs to take the same readings."""
        return {"losses": list(self._losses), "norms": list(self._norms)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Put :meth:`state` back."""
        self._losses, self._norms = list(state["losses"]), list(state["norms"])

    def after_step(self, step: int, loss: float, grad_norm: float) -> None:
        """Take a reading when one is due.

        Raises:
            BetterSynthError: ``stop`` was asked for and the model still ignores its pictures at the last point.
        """
        self._losses.append(loss)
        self._norms.append(grad_norm)
        share = self._points.get(step)
        if share is None or not self._held_out:
            return
        reading = self._read(step, share)
        if self._run.devices.is_main:
            before = [line for line in read_log(self._path) if line["step"] < step]
            lines = [*before, asdict(reading)]
            write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
            self._run.note(describe(reading))
        if self._stop and share == POINTS[-1] and reading.verdict == "not yet":
            raise BetterSynthError(
                t("at half of stage 1 the model still ignores its pictures"),
                where=str(self._path),
                got=describe(reading),
                hint=t("another seed or cleaner data; to go on all the same: alignment_probe: warn"),
            )

    def _read(self, step: int, share: float) -> Reading:
        own, others = self._scores()
        hits = sum(right < wrong for right, wrong in others)
        margins = [wrong - right for right, wrong in others]
        tenth = max(1, len(self._losses) // 10)
        typical = median(self._norms)
        low = wilson_low(hits, len(others))
        return Reading(
            step=step,
            share=share,
            retrieval=hits / max(1, len(others)),
            low=low,
            comparisons=len(others),
            margin=sum(margins) / max(1, len(margins)),
            held_out_loss=sum(own) / max(1, len(own)),
            loss=sum(self._losses[-tenth:]) / tenth,
            first_loss=sum(self._losses[:tenth]) / tenth,
            grad_norm=typical,
            spikes=sum(norm > _SPIKE * typical for norm in self._norms) / len(self._norms),
            verdict=verdict_of(low),
        )

    @torch.no_grad()
    def _scores(self) -> tuple[list[float], list[tuple[float, float]]]:
        """Mean losses with the own picture, and (own, other's) for every comparison; the same in all processes."""
        run = self._run
        family: Any = run.family
        examples = run.data.examples
        size = max(2, min(len(self._held_out), run.spec.micro_batch))
        chunks = [self._held_out[at : at + size] for at in range(0, len(self._held_out), size)]
        mine: list[tuple[list[float], list[tuple[float, float]]]] = []
        run.model.eval()
        for indices, batch in run.batches(run.share(chunks)):
            right = sample_means(family.detailed_loss(run.model, batch), len(indices)).tolist()
            pairs: list[tuple[float, float]] = []
            for turn in range(1, min(OTHERS, len(indices) - 1) + 1):
                places = [(place + turn) % len(indices) for place in range(len(indices))]
                swapped = family.swap_images(batch, torch.tensor(places, device=run.devices.device))
                wrong = sample_means(family.detailed_loss(run.model, swapped), len(indices)).tolist()
                for place, other in enumerate(places):
                    one, two = examples[indices[place]], examples[indices[other]]
                    if one.images != two.images and one.labels != two.labels:
                        pairs.append((right[place], wrong[place]))
            mine.append((right, pairs))
        run.model.train()
        parts = [part for rank in run.gather(mine) for part in rank]
        return [loss for own, _ in parts for loss in own], [pair for _, pairs in parts for pair in pairs]


def open_probe(
    run: TechniqueRun, order: Sequence[int], state: Mapping[str, Any], first_step: int
) -> AlignmentProbe | None:
    """The probe that a stage asks for, where it left off; None when it asks for none or the family cannot be probed.

    Args:
        order: the samples in training order.
        state: the saved training state, empty at the start of a run.
        first_step: steps done before. A run that only now asks for the probe has no losses from them.
    """
    wanted = run.config.alignment_probe
    if wanted == "off" or run.config.stage != 1:
        return None
    if not all(hasattr(run.family, method) for method in ("detailed_loss", "swap_images")):
        return None
    probe = AlignmentProbe(run, order, stop=wanted == "stop")
    if state.get("probe"):
        probe.load_state(state["probe"])
    if run.devices.is_main:
        lines = [line for line in read_log(run.out / PROBE_FILE) if line["step"] <= first_step]
        if lines or (run.out / PROBE_FILE).exists():
            write_atomic(run.out / PROBE_FILE, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return probe


def _held_out(run: TechniqueRun, order: Sequence[int]) -> list[int]:
    """The samples whose first showing comes last, those with one picture only, in an order drawn from the seed."""
    examples = run.data.examples
    found: list[int] = []
    for index in reversed(list(dict.fromkeys(order))):
        if len(examples[index].images) == 1:
            found.append(index)
            if len(found) == HELD_OUT:
                break
    found.sort(key=lambda index: derive_seed(run.config.seed, "probe", index))
    return found


def describe(reading: Reading) -> str:
    """A reading in one line."""
    said = {
        "aligned": t("uses its pictures"),
        "weak": t("confuses many pictures: captions that do not fit, or too few steps so far"),
        "not yet": t("does not use its pictures yet"),
    }[reading.verdict]
    return t(
        "alignment at {share} % of the steps: own picture preferred in {retrieval} % of {n} comparisons "
        "(from {low} %), margin {margin} nats a token: the model {said}",
        share=round(100 * reading.share),
        retrieval=round(100 * reading.retrieval, 1),
        n=reading.comparisons,
        low=round(100 * reading.low, 1),
        margin=round(reading.margin, 3),
        said=said,
    )


def readings(folder: Path) -> list[dict[str, Any]]:
    """The readings of a finished or running stage, oldest first."""
    return read_log(folder / PROBE_FILE)
