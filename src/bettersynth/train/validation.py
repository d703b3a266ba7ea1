"""Losses on held-out records while training: logged, never learnt from, and no part of a track's budget."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.family import LossOutput, ModelFamily, Processor
from bettersynth.models.joint import JointOutput
from bettersynth.train.callbacks import Callback, RunInfo, StepView, read_log
from bettersynth.train.data import prepare
from bettersynth.train.loader import Loader, MicroBatch
from bettersynth.train.mixture import pack_batches
from bettersynth.train.prepare import COMPUTE_DTYPES, build_processor, prepare_processor

FILE = "validation.jsonl"
BEST_FOLDER = "best"
BEST_FILE = "best.json"


def held_out(config: StageConfig) -> StageConfig:
    """A stage's settings with its validation records in place of its data."""
    assert config.val_data is not None
    places = {"data": config.val_data, "max_samples": config.val_samples, "sample_seed": 0}
    return config.model_copy(update={**places, "samples_seen": None})


def open_validation(
    config: StageConfig, family: ModelFamily, model: nn.Module, out: Path, report: Callback
) -> list[Callback]:
    """The measurements that a training asks for, if it does; the records are read and checked now.

    Args:
        config: of the training.
        family: the model's family.
        model: as it was loaded.
        out: the training's folder.
        report: told of every measurement.
    """
    if config.val_data is None:
        return []
    own = held_out(config)
    processor = build_processor(own, family, model)
    quiet = getattr(family, "without_noise", None)
    processor = prepare_processor(own, family, model, processor) if quiet is None else quiet(processor)
    return [Validation(config, family, processor, out, report)]


class Validation(Callback):
    """Measures the loss every ``eval_steps`` steps and after the last one, in process 0.

    A record that cannot be used is told and left out; ``records`` in ``validation.jsonl`` says how many were measured.
    Dropout, techniques and noise of training are off, and every target token counts the same. The weights that would
    be published are measured: the average if there is one. A joint training keeps the best ones in ``best/``.

    Args:
        config: of the training.
        family: the model's family.
        processor: of :func:`held_out` settings, for a model that is prepared as the training's is.
        out: the training's folder, for ``validation.jsonl`` and ``best/``.
        report: told of every measurement.

    Raises:
        DataError: the validation data cannot be used; the same limits hold as for training data.
    """

    def __init__(
        self, config: StageConfig, family: ModelFamily, processor: Processor, out: Path, report: Callback
    ) -> None:
        self.data = prepare(held_out(config), processor)
        self._config, self._family, self._out, self._report = config, family, out, report
        self._every = config.eval_steps or config.save_steps
        self._path = out / FILE
        self._best: float | None = None
        self._bad: set[int] = set()
        self._passes = _passes(config, self.data.examples.num_tokens)
        self._loader = Loader(self.data.examples, processor, cache_bytes=config.pixel_cache_bytes, workers=0, ahead=1)

    def on_start(self, info: RunInfo) -> None:
        """Say what is left out, and forget what was measured after the state that the run continues from."""
        for note in self.data.notes:
            self._report.on_note(t("{name}: held-out records: {note}", name=self._out.name, note=note))
        self._lines = [line for line in read_log(self._path) if line["step"] <= info.first_step]
        self._best = min((line["loss"] for line in self._lines), default=None)
        self._write()

    def on_step(self, view: StepView) -> None:
        """Measure where it is due."""
        if view.step % self._every and view.step != view.total_steps:
            return
        with nullcontext() if view.average is None else view.average.applied():
            losses = self.measure(view.model)
            is_best = self._best is None or losses["loss"] < self._best
            if is_best:
                self._best = losses["loss"]
                if self._config.unified is not None:
                    self._keep(view, losses)
        records = len(self.data.examples) - len(self._bad)
        self._lines.append({"step": view.step, **losses, "is_best": is_best, "records": records})
        self._write()
        self._report.on_metrics(view.step, losses)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """``loss`` over all records; of a joint loss also ``text_loss`` and ``image_loss``, where there are targets."""
        device, precision = next(model.parameters()).device, self._config.precision
        sums: dict[str, list[float]] = {}
        model.eval()
        for number, indices in enumerate(self._passes):
            item = self._loader.build(0, number, indices)
            self._tell(item)
            if item.batch is None:
                continue
            with torch.autocast(device.type, dtype=COMPUTE_DTYPES[precision], enabled=precision != "fp32"):
                output = self._family.loss(model, {name: tensor.to(device) for name, tensor in item.batch.items()})
            for name, loss_sum, count in _parts(output):
                held = sums.setdefault(name, [0.0, 0.0])
                held[0] += float(loss_sum)
                held[1] += float(count)
        model.train()
        means = {name: total / count for name, (total, count) in sums.items() if count > 0}
        settings = self._config.unified
        if settings is None:
            return means
        weights = {"text_loss": settings.text_loss_weight, "image_loss": settings.image_loss_weight}
        return {"loss": sum(weights[name] * value for name, value in means.items()), **means}

    def _tell(self, item: MicroBatch) -> None:
        """Name each record whose picture cannot be opened, one time."""
        for index, row in item.bad:
            if index not in self._bad:
                self._bad.add(index)
                self._report.on_note(t("sample {key} left out: {detail}", key=row.key, detail=row.detail))

    def _keep(self, view: StepView, losses: Mapping[str, float]) -> None:
        """Write the best checkpoint beside the one before it, then exchange the two."""
        temporary, final = self._out / f".{BEST_FOLDER}.tmp", self._out / BEST_FOLDER
        inner: Any = getattr(view.model, "module", view.model)
        tokenizer = inner.tokenizer_folder
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            self._family.save_checkpoint(view.model, temporary, dtype=COMPUTE_DTYPES[self._config.precision])
            write_atomic(temporary / BEST_FILE, json.dumps({"step": view.step, **losses}).encode())
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            hint = t("choose a writable output folder with free space")
            raise DataError(
                t("cannot save the best checkpoint"), where=str(final), got=error.strerror, hint=hint
            ) from error
        finally:
            inner.tokenizer_folder = tokenizer

    def _write(self) -> None:
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in self._lines).encode())


def _passes(config: StageConfig, lengths: Sequence[int]) -> list[list[int]]:
    """Forward passes over all records: a joint training's as its own are packed, else of neighbours in length."""
    size = config.per_device_batch_size
    if config.unified is not None:
        limit = config.unified.pack_tokens or size * max(lengths)
        return pack_batches([list(range(len(lengths)))], lengths, limit)
    ordered = sorted(range(len(lengths)), key=lambda index: lengths[index])
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def _parts(output: LossOutput) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, sum, denominator) of what a pass says."""
    if isinstance(output, JointOutput):
        return [(f"{part.name}_loss", part.loss_sum, part.denominator) for part in output.parts]
    return [("loss", output.loss_sum, output.num_targets)]
