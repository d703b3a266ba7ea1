"""The one training loop: any family and stage, one process or several, resumable at every step to the same bits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, DataError, RunInterrupted
from bettersynth.core.lang import t
from bettersynth.core.meter import cpu_seconds
from bettersynth.core.seed import derive_seed
from bettersynth.models.family import Batch, ModelFamily, Processor
from bettersynth.train import checkpoint, joint, optim
from bettersynth.train.callbacks import Callback, Callbacks, LogRecord, RunInfo, StepView
from bettersynth.train.checkpoint import Counters
from bettersynth.train.data import check_bad_ratio
from bettersynth.train.distributed import Devices
from bettersynth.train.ema import build_average
from bettersynth.train.examples import RejectedRow, TrainingSet
from bettersynth.train.features import open_features
from bettersynth.train.loader import Loader, MicroBatch
from bettersynth.train.memory import measured
from bettersynth.train.mixture import pack_batches
from bettersynth.train.placement import build_placement
from bettersynth.train.prepare import COMPUTE_DTYPES, prepare_model, prepare_processor
from bettersynth.train.probe import AlignmentProbe, open_probe
from bettersynth.train.sampler import OrderSpec, micro_batches
from bettersynth.train.session import reproducible, stop_on_signals
from bettersynth.train.speed import Speed
from bettersynth.train.technique import TechniqueRun, Techniques


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished loop did.

    Attributes:
        bad: samples whose picture turned out to be damaged, by example index.
        mean_loss: over all steps.
        earlier_s: wall and processor seconds of training in processes before this one.
        techniques: what each technique says about the run.
    """

    counters: Counters
    total_steps: int
    bad: dict[int, RejectedRow]
    weights_digest: str
    mean_loss: float
    earlier_s: tuple[float, float]
    techniques: dict[str, Any]


def order_spec(config: StageConfig, data: TrainingSet) -> OrderSpec:
    """How many samples are shown in which batches. ``config`` must have its batch filled in (``with_devices``)."""
    total = config.samples_seen if config.samples_seen is not None else config.epochs * len(data.examples)
    return OrderSpec(
        total=total,
        global_batch=config.global_batch or config.per_device_batch_size,
        micro_batch=config.per_device_batch_size,
        seed=config.seed,
        is_grouped=config.group_by_modality_length,
        is_dealt=config.loss_normalization == "micro_batch",
    )


class Trainer:
    """Trains a model in place. :meth:`run` either finishes, or leaves a state from which the next run continues.

    Args:
        config: with batch and accumulation filled in (``with_devices``).
        family: the model's family.
        model: as it was loaded; it gets memory of its own on the device.
        processor: opens pictures and joins batches.
        data: tokenised examples.
        out: folder of states and logs.
        devices: this process among all.
        callbacks: watchers; they run in process 0 only.
    """

    def __init__(
        self,
        config: StageConfig,
        family: ModelFamily,
        model: nn.Module,
        processor: Processor,
        data: TrainingSet,
        out: Path,
        devices: Devices,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.config, self.family, self.model, self.data, self.out = config, family, model, data, out
        self.devices = devices
        self.callbacks = Callbacks(callbacks if devices.is_main else ())
        self.spec = order_spec(config, data)
        self.order = data.order(self.spec)
        self.parts = joint.build_parts(config, data)
        prepare_model(config, family, model)
        self.placement = build_placement(config, family, model, devices)
        self.trained, self.parameters = self.placement.trained, self.placement.parameters
        self.optimizer = optim.build_optimizer(self.parameters, config)
        self.scaler = torch.amp.GradScaler(devices.device.type) if config.precision == "fp16" else None
        self.average = build_average(config, self.parameters)
        self.counters = Counters()
        processor = prepare_processor(config, family, model, processor)
        self.features = open_features(config, family, model, processor)
        self.loader = Loader(
            data.examples,
            processor,
            cache_bytes=config.pixel_cache_bytes,
            workers=config.workers,
            ahead=config.prefetch_batches,
            features=self.features,
        )
        self._run = TechniqueRun(
            *(config, family, model, self.parameters, data, self.spec, devices),
            *(self._batches, out, self.callbacks.on_note, self.placement.is_lockstep),
        )
        self.techniques = Techniques(self._run)
        self.probe: AlignmentProbe | None = None
        self._stop = threading.Event()
        self._saved_step = 0

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Continue from the newest state, if there is one, and train to the end.

        Raises:
            RunInterrupted: Ctrl-C or SIGTERM came; the state after the current step is saved.
            BetterSynthError: loss or gradient is not finite, or too many pictures are damaged; the last state stays.
        """
        state = self._resume()
        first = self.counters.step
        self._earlier_s = (self.counters.wall_s, self.counters.cpu_s)
        self._started = (time.perf_counter() - self.counters.wall_s, cpu_seconds() - self.counters.cpu_s)
        self._session = (time.perf_counter(), self.counters.samples, self.counters.tokens)
        self.speed = Speed(self.family, self.model, self.data.examples.num_tokens, self.devices)
        info = RunInfo(
            name=self.out.name,
            stage=self.config.stage,
            out=self.out,
            total_steps=self.spec.steps,
            total_samples=self.spec.total,
            first_step=first,
            settings=self.config.result_settings(),
        )
        self.model.train()
        watch = measured(self, is_tracked=self.config.track_memory)
        with reproducible(self.config, self.devices.device), stop_on_signals(self._stop), watch as self.memory:
            try:
                self.callbacks.on_start(info)
                self.order = self.techniques.order(self.order)
                self.probe = open_probe(self._run, self.order, state, first)
                self._windows(first)
                self.techniques.finish()
                result = self._result()
                self.callbacks.on_end(self._summary(result))
                return result
            finally:
                self.callbacks.close()

    def _windows(self, first: int) -> None:
        """All steps; where a technique chooses samples while training, no picture is opened before it has chosen."""
        window = self.techniques.window or self.spec.steps
        while first < self.spec.steps:
            border = first - first % window
            if self.techniques.window:
                self.order = self.techniques.reorder(self.order, border)
            last = min(border + window, self.spec.steps)
            micro = self.loader(self._plan(first, last))
            try:
                self._steps(first, last, micro)
            finally:
                micro.close()
            first = last

    def _steps(self, first: int, last: int, micro: Iterator[MicroBatch]) -> None:
        ahead = next(micro, None)

        def of_step(step: int) -> Iterator[MicroBatch]:
            nonlocal ahead
            while ahead is not None and ahead.step == step:
                yield ahead
                ahead = next(micro, None)

        for step in range(first, last):
            loss, grad_norm, stop = self._step(step, of_step(step))
            self.techniques.after_step(step + 1)
            if self.probe is not None:
                self.probe.after_step(step + 1, loss, grad_norm)
            self.callbacks.on_step(StepView(step + 1, self.spec.steps, loss, self.model, self.average))
            is_last = step + 1 == self.spec.steps
            self._log(step, loss, grad_norm, is_last)
            if stop or is_last or (step + 1) % self.config.save_steps == 0:
                self._save()
            if stop and not is_last:
                raise RunInterrupted(
                    t(
                        "interrupted after step {step} of {total}; the state is saved",
                        step=step + 1,
                        total=self.spec.steps,
                    ),
                    where=str(self.out),
                    hint=t("run the same command again; it continues there"),
                )

    def _plan(self, first: int, last: int) -> Iterator[tuple[int, int, list[int]]]:
        """This process's forward passes: every world-th one of each step.

        In lockstep every process makes equally many: one that runs out makes the step's first pass again, which does
        not count (its number is none of the step's).
        """
        world, rank = self.devices.world, self.devices.rank
        for step in range(first, last):
            passes = self._passes(step)
            rounds = -(-len(passes) // world) if self.placement.is_lockstep else -(-(len(passes) - rank) // world)
            for number in range(rank, rank + rounds * world, world):
                yield step, number, passes[number] if number < len(passes) else passes[0]

    def _passes(self, step: int) -> list[list[int]]:
        """The samples of each forward pass of a step, over all processes."""
        batches = micro_batches(self.order, self.spec, step)
        settings = self.config.unified
        if settings is None or settings.pack_tokens is None:
            return batches
        return pack_batches(batches, self.data.examples.num_tokens, settings.pack_tokens)

    # -- one step ------------------------------------------------------------------------------------------------

    def _step(self, step: int, micro: Iterator[MicroBatch]) -> tuple[float, float, bool]:
        """Forward, backward and update of one global batch.

        Returns:
            Loss, gradient norm before clipping, and whether any process was asked to stop.
        """
        expected = self._expected_targets(step)
        # loss sum, targets, forward passes with targets, samples, tokens, bad samples, processes asked to stop; then
        # sum and denominator of each part of a joint loss
        sums = torch.zeros(7 + self.parts.width, dtype=torch.float64, device=self.devices.device)
        bad: list[tuple[int, RejectedRow]] = []
        known = [0, 0]
        num_passes = len(self._passes(step))
        for item in micro:
            is_counted = item.number < num_passes
            if is_counted:
                bad.extend(item.bad)
            if item.batch is None:
                if not self.placement.is_lockstep:
                    continue
                item, is_counted = self._stand_in(item), False
            self._seed(step, item.number)
            loss, facts = self._forward(item, expected)
            if is_counted:
                sums[:3] += facts[:3]
                sums[7:] += facts[3:]
                known[0] += len(item.indices)
                known[1] += item.num_tokens
            else:
                loss = loss * 0.0
            if loss.requires_grad:  # a batch of nothing but frozen parts' targets teaches nothing
                (self.scaler.scale(loss) if self.scaler is not None else loss).backward()
        sums[3:7] = torch.tensor([*known, len(bad), self._stop.is_set()], dtype=sums.dtype)
        self.devices.sum_([sums])
        loss_sum, targets, passes, samples, tokens, num_bad, stop, *parts = sums.tolist()
        if num_bad:
            self._note_bad(bad)
        counters = self.counters
        counters.step = step + 1
        counters.samples += int(samples)
        counters.tokens += int(tokens)
        counters.targets += int(targets)
        if not passes:  # every picture of this step is damaged: there is nothing to learn from, and no update
            counters.skipped_steps += 1
            return counters.last_loss, 0.0, bool(stop)
        is_by_token = self.config.loss_normalization == "tokens"
        factor = expected / targets if is_by_token else 1.0 / passes
        loss_value = loss_sum / (targets if is_by_token else passes)
        if self.parts:
            loss_value, factor = self.parts.note(parts, counters.parts), 1.0
        self._check_finite(t("loss"), loss_value, step)
        grad_norm = self._update(step, factor)
        if self.average is not None:
            self.average.update()
        counters.last_loss = loss_value
        return loss_value, grad_norm, bool(stop)

    def _stand_in(self, item: MicroBatch) -> MicroBatch:
        """In lockstep, something to compute for a process all of whose pictures are damaged; it does not count.

        Raises:
            DataError: there is not one usable sample.
        """
        for at in range(len(self.order)):
            found = self.loader.build(item.step, item.number, [self.order[at]])
            if found.batch is not None:
                return found
        raise DataError(t("no usable training sample"))

    def _forward(self, item: MicroBatch, expected: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss to go backward from, and (loss for the record, targets, passes with targets, parts)."""
        assert item.batch is not None
        with self._autocast():
            output = self.techniques.loss(self.model, self._on_device(item, item.batch), item.indices)
        targets = output.num_targets.to(torch.float64)
        passes = (targets > 0).to(torch.float64)
        if self.parts:
            loss, parts = self.parts.loss(output)
            return loss, torch.cat([torch.stack([loss.detach().double(), targets, passes]), parts])
        if self.config.loss_normalization == "tokens":
            # Dividing by the number of targets known beforehand keeps fp16 gradients in range.
            return output.loss_sum / expected, torch.stack([output.loss_sum.detach().double(), targets, passes])
        mean = output.loss_sum / output.num_targets.clamp(min=1)
        return mean, torch.stack([mean.detach().double(), targets, passes])

    def _on_device(self, item: MicroBatch, batch: Batch) -> Batch:
        on_device = {name: tensor.to(self.devices.device, non_blocking=True) for name, tensor in batch.items()}
        if self.features is not None and item.pictures is not None:
            on_device |= self.features.features(item.pictures, self.devices.device)
        return on_device

    def _batches(self, chunks: Iterable[Sequence[int]]) -> Iterator[tuple[tuple[int, ...], Batch]]:
        """Batches of given samples outside the training order; samples with a damaged picture are left out of them."""
        for item in self.loader((0, number, indices) for number, indices in enumerate(chunks)):
            if item.batch is not None:
                with self._autocast():
                    yield item.indices, self._on_device(item, item.batch)

    def _expected_targets(self, step: int) -> float:
        targets = self.data.examples.num_targets
        indices = [i for batch in micro_batches(self.order, self.spec, step) for i in batch]
        self.parts.expect(indices)
        return float(max(1, sum(targets[i] for i in indices)))

    def _update(self, step: int, factor: float) -> float:
        """Average gradients over processes, clip, and step. ``factor`` turns summed gradients into the mean's."""
        self.placement.collect()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grads = self.placement.reduce()
        norm = self.placement.norm(grads) * factor
        if self.scaler is None:
            self._check_finite(t("gradient norm"), norm, step)
        scale = factor * (optim.clip_factor(norm, self.config.max_grad_norm) if math.isfinite(norm) else 1.0)
        if scale != 1.0:
            torch._foreach_mul_(grads, scale)
        optim.set_lr(self.optimizer, optim.lr_at(self.config, step, self.spec.steps))
        if self.scaler is None:
            self.optimizer.step()
        else:
            self._scaled_step(norm)
        self.optimizer.zero_grad(set_to_none=True)
        self.placement.refresh()
        return norm

    def _scaled_step(self, norm: float) -> None:
        """fp16: leave the step out when any process overflowed, and lower the scale."""
        assert self.scaler is not None
        before = self.scaler.get_scale()
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
        else:
            self.counters.skipped_steps += 1
        self.scaler.update(None if math.isfinite(norm) else before * self.scaler.get_backoff_factor())

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast(
            self.devices.device.type, dtype=COMPUTE_DTYPES[self.config.precision]
        )
        return context

    def _seed(self, step: int, number: int) -> None:
        """Dropout and the like depend on the run's seed and the place in the data only, not on what ran before."""
        torch.manual_seed(derive_seed(self.config.seed, "step", step, number))

    # -- watching ------------------------------------------------------------------------------------------------

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if math.isfinite(value):
            return
        batch = [index for part in micro_batches(self.order, self.spec, step) for index in part]
        keys = [self.data.examples.key(index) for index in batch]
        shown = ", ".join(keys[:8]) + (f", ... ({len(keys)})" if len(keys) > 8 else "")
        raise BetterSynthError(
            t("the {what} is not finite at step {step}", what=what, step=step + 1),
            where=t("samples: {keys}", keys=shown),
            got=value,
            hint=t("the last saved state is kept; lower the learning rate, or look at these samples with inspect"),
        )

    def _note_bad(self, bad: list[tuple[int, RejectedRow]]) -> None:
        """Record samples whose picture could not be opened; stop when they are too many."""
        found = [item for part in self.devices.gather(bad) for item in part]
        fresh = {index: asdict(row) for index, row in found if index not in self.counters.bad}
        if not fresh:
            return
        self.counters.bad.update(fresh)
        for row in fresh.values():
            self.callbacks.on_note(t("sample {key} left out: {detail}", key=row["key"], detail=row["detail"]))
        rows = self.data.rows - self.data.sampled_out
        late = [RejectedRow(**row) for row in self.counters.bad.values()]
        check_bad_ratio(self.config, rows, [*self.data.rejected, *late])

    def _log(self, step: int, loss: float, grad_norm: float, is_last: bool) -> None:
        counters = self.counters
        counters.window[0] += loss
        counters.window[1] += 1
        counters.loss_total += loss
        counters.wall_s = time.perf_counter() - self._started[0]
        counters.cpu_s = cpu_seconds() - self._started[1]
        if not is_last and (step + 1) % self.config.logging_steps:
            return
        session_s = max(time.perf_counter() - self._session[0], 1e-9)
        record = LogRecord(
            step=step + 1,
            epoch=counters.samples / len(self.data.examples),
            loss=counters.window[0] / counters.window[1],
            lr=optim.lr_at(self.config, step, self.spec.steps),
            grad_norm=grad_norm,
            samples_seen=counters.samples,
            tokens=counters.tokens,
            samples_per_s=round((counters.samples - self._session[1]) / session_s, 3),
            wall_s=round(counters.wall_s, 3),
            **self.speed.facts((counters.tokens - self._session[2]) / session_s),
            parts=self.parts.means(counters.parts),
        )
        counters.window = [0.0, 0.0]
        counters.parts = {}
        self.callbacks.on_log(record)

    # -- states --------------------------------------------------------------------------------------------------

    def _resume(self) -> dict[str, Any]:
        """Take up the newest state; returns it, empty when there is none."""
        state, folder, damaged = checkpoint.load_newest(self.out, self.devices)
        for path in damaged:
            self.callbacks.on_note(t("damaged training state passed over: {path}", path=path))
        if state is not None:
            if state["samples"] != self.data.digest:
                raise DataError(
                    t("other samples are usable now than when the training state was saved"),
                    where=str(self.out),
                    got=t("{n} usable rows", n=len(self.data.examples)),
                    hint=t("put back the missing pictures, or delete the folder to begin again"),
                )
            self.placement.open_state(state, folder, self.optimizer)
            self.counters = checkpoint.unpack_state(state, self.parameters, self.optimizer, self.scaler)
            self.placement.refresh()
            if self.average is not None:
                self.average.load(state["average"])
            self.techniques.load_state(state["techniques"])
        self._saved_step = self.counters.step
        return state or {}

    def _save(self) -> None:
        step, devices = self.counters.step, self.devices
        if self._saved_step != step and (devices.is_main or self.placement.is_lockstep):
            state = checkpoint.pack_state(self.parameters, self.optimizer, self.scaler, self.counters)
            state["samples"] = self.data.digest
            if self.average is not None:
                state["average"] = dict(self.average.tensors)
            state["techniques"] = self.techniques.state()
            if self.probe is not None:
                state["probe"] = self.probe.state()
            if devices.is_main:
                checkpoint.begin_state(self.out, step)
            temporary = checkpoint.temporary_folder(self.out, step)
            digests = self.placement.save_shards(state, temporary, self.optimizer)
            if devices.is_main:
                folder = checkpoint.save_state(self.out, step, state, self.config.save_total_limit, digests)
                self.callbacks.on_save(step, folder)
        self._saved_step = step
        devices.barrier()

    def _result(self) -> TrainResult:
        self.parameters = self.placement.restore()
        if self.average is not None:
            self.average.tensors = self.placement.whole(self.average.tensors)
            self.average.parameters = self.parameters
        bad = {index: RejectedRow(**row) for index, row in self.counters.bad.items()}
        digest = checkpoint.weights_digest(self.parameters) if self.devices.is_main else ""
        digest = self.devices.gather(digest)[0]
        mean_loss = self.counters.loss_total / max(1, self.spec.steps)
        said = self.techniques.facts()
        return TrainResult(self.counters, self.spec.steps, bad, digest, mean_loss, self._earlier_s, said)

    def _summary(self, result: TrainResult) -> dict[str, Any]:
        counters = result.counters
        return {
            "steps": result.total_steps,
            "samples_seen": counters.samples,
            "epoch": round(counters.samples / len(self.data.examples), 4),
            "mean_loss": result.mean_loss,
            "wall_s": counters.wall_s,
            "cpu_s": counters.cpu_s,
        }
