"""What a joint training leaves behind: the official folder with its average, and the best checkpoint by validation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.bagel.packing import NO_DROPOUT
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.family import ModelFamily, Processor
from bettersynth.models.joint import JointOutput
from bettersynth.train import lora
from bettersynth.train.callbacks import Callback, RunInfo, StepView, read_log
from bettersynth.train.loader import Loader
from bettersynth.train.mixture import pack_batches
from bettersynth.train.prepare import COMPUTE_DTYPES
from bettersynth.train.sample_grid import SampleGrid
from bettersynth.train.unified_data import prepare_unified

if TYPE_CHECKING:
    from bettersynth.train.trainer import Trainer

RAW_FILE = "model.safetensors"
STATE_DICT_FILE = "trained_model.pt"
VALIDATION_FILE = "validation.jsonl"
BEST_FOLDER = "best"
BEST_FILE = "best.json"


def save(trainer: Trainer, folder: Path, *, dtype: torch.dtype) -> None:
    """Write the official folder. With an average, ``ema.safetensors`` holds it and ``model.safetensors`` the weights.

    Low-rank additions are written as an adapter, and merged. ``trained_model.pt``, where it is asked for, holds what
    ``ema.safetensors`` holds.
    """
    family: Any = trainer.family
    config, settings = trainer.config, trainer.config.unified
    assert settings is not None
    if trainer.average is not None and config.lora is None:
        family.save_weights(trainer.model, folder, dtype=dtype, name=RAW_FILE)
    with nullcontext() if trainer.average is None else trainer.average.applied():
        if config.lora is not None:
            lora.save(config, family, trainer.model, folder / lora.FOLDER if config.lora.merge else folder)
            if not config.lora.merge:
                return
            lora.merge(trainer.model)
        family.save_checkpoint(trainer.model, folder, dtype=dtype)
        if settings.state_dict_file:
            family.save_weights(trainer.model, folder, dtype=dtype, name=STATE_DICT_FILE)


def watchers(
    config: StageConfig, family: ModelFamily, processor: Processor, out: Path, report: Callback
) -> list[Callback]:
    """Validation and sample grids of a joint training, if they are asked for; their data is read and checked now.

    Args:
        report: told of every measurement and grid.
    """
    settings, found = config.unified, list[Callback]()
    if settings is None:
        return found
    assert isinstance(processor, UnifiedProcessor)
    if settings.val_data is not None:
        found.append(Validation(config, family, processor, out, report))
    if settings.sample_prompts is not None:
        found.append(SampleGrid(config, processor, out, report))
    return found


class Validation(Callback):
    """Losses on held-out records every ``eval_steps`` steps, without dropout and with the same noise every time.

    The weights that would be published are measured: the average if there is one. The best ones are kept in ``best/``.

    Raises:
        DataError: the validation data cannot be used; the same limits hold as for training data.
    """

    def __init__(
        self, config: StageConfig, family: ModelFamily, processor: UnifiedProcessor, out: Path, report: Callback
    ) -> None:
        settings = config.unified
        assert settings is not None and settings.val_data is not None
        places = {"data": settings.val_data, "max_samples": settings.val_samples, "sample_seed": 0}
        own = config.model_copy(update={**places, "samples_seen": None})
        encoder = replace(processor.encoder, image_root=own.images)
        self._processor = replace(processor, encoder=encoder, dropout=NO_DROPOUT, sample_posterior=False)
        self.data = prepare_unified(own, self._processor)
        self._config, self._family, self._out, self._report = config, family, out, report
        self._every = settings.eval_steps or config.save_steps
        self._path = out / VALIDATION_FILE
        self._best: float | None = None
        lengths = self.data.examples.num_tokens
        limit = settings.pack_tokens or config.per_device_batch_size * max(lengths)
        self._passes = pack_batches([list(range(len(self.data.examples)))], lengths, limit)
        store, cache = self.data.examples, config.pixel_cache_bytes
        self._loader = Loader(store, self._processor, cache_bytes=cache, workers=0, ahead=1)  # type: ignore[arg-type]

    def on_start(self, info: RunInfo) -> None:
        """Forget what was measured after the state that the run continues from."""
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
                self._keep(view, losses)
        self._lines.append({"step": view.step, **losses, "is_best": is_best})
        self._write()
        self._report.on_metrics(view.step, losses)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """``loss``, ``text_loss`` and ``image_loss`` over all records; a part without targets is left out."""
        settings, device = self._config.unified, next(model.parameters()).device
        assert settings is not None
        precision = self._config.precision
        sums: dict[str, list[float]] = {}
        model.eval()
        for number, indices in enumerate(self._passes):
            item = self._loader.build(0, number, indices)
            if item.batch is None:
                continue
            with torch.autocast(device.type, dtype=COMPUTE_DTYPES[precision], enabled=precision != "fp32"):
                output = self._family.loss(model, {name: tensor.to(device) for name, tensor in item.batch.items()})
            assert isinstance(output, JointOutput)
            for part in output.parts:
                held = sums.setdefault(part.name, [0.0, 0.0])
                held[0] += float(part.loss_sum)
                held[1] += float(part.denominator)
        model.train()
        means = {f"{name}_loss": total / count for name, (total, count) in sums.items() if count > 0}
        weights = {"text_loss": settings.text_loss_weight, "image_loss": settings.image_loss_weight}
        return {"loss": sum(weights[name] * value for name, value in means.items()), **means}

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
