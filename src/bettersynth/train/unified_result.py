"""What a joint training leaves behind: the official folder with its average, and grids of pictures."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bettersynth.config.train import StageConfig
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.family import Processor
from bettersynth.train import lora
from bettersynth.train.callbacks import Callback
from bettersynth.train.sample_grid import SampleGrid

if TYPE_CHECKING:
    from bettersynth.train.trainer import Trainer

RAW_FILE = "model.safetensors"
STATE_DICT_FILE = "trained_model.pt"


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


def watchers(config: StageConfig, processor: Processor, out: Path, report: Callback) -> list[Callback]:
    """Sample grids of a joint training, if they are asked for; their prompts are read and checked now.

    Args:
        config: of the training.
        processor: of the training.
        out: the training's folder.
        report: told of every grid.
    """
    if config.unified is None or config.unified.sample_prompts is None:
        return []
    assert isinstance(processor, UnifiedProcessor)
    return [SampleGrid(config, processor, out, report)]
