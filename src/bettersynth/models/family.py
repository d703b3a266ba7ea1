"""What the trainer and the evaluation know about a model: one protocol, one folder per family.

A family is the folder ``models/NAME/`` whose module ``family.py`` defines ``FAMILY``, an object with the methods of
:class:`ModelFamily`. Nothing is registered anywhere; the folder's name is the family's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.core.sample import Conversation, ImageRef

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""One image: uint8, (H, W, 3), already at the size of the high-resolution tower."""

Batch = dict[str, torch.Tensor]

IGNORE_LABEL = -100
IMAGE_MARKER = -200
"""Stands for one image in token ids before splicing."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training record as token ids.

    Attributes:
        key: the record's id.
        input_ids: tokens with -200 for each image.
        labels: same length; -100 where nothing is learnt.
        images: one reference per marker, in order.
        num_tokens: length after the markers have been replaced by image tokens.
    """

    key: str
    input_ids: list[int]
    labels: list[int]
    images: tuple[ImageRef, ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be trained on, and why. ``reason`` is a fixed word for counting, ``detail`` a sentence."""

    key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class BaseFolders:
    """Where stage 1 starts from: three public base models and the sizes that join them.

    Attributes:
        llm: Hugging Face Gemma folder with its tokenizer.
        vision_tower: Hugging Face CLIP folder (low-resolution tower).
        vision_tower_aux: open_clip ConvNeXt folder (high-resolution tower).
        image_size_aux: side in pixels of the picture given to the high-resolution tower.
        model_max_length: longest sequence in tokens, image tokens included.
        image_aspect_ratio: ``square`` (crop) or ``pad`` (letterbox), recorded in the checkpoint.
        image_grid: crops per side of the low-resolution view (HD mode when above 1).
        image_global: whether HD mode adds a view of the whole picture.
    """

    llm: Path
    vision_tower: Path
    vision_tower_aux: Path
    image_size_aux: int = 768
    model_max_length: int = 2048
    image_aspect_ratio: str = "square"
    image_grid: int = 1
    image_global: bool = False


@dataclass(frozen=True, slots=True)
class TargetDetail:
    """The targets of a batch one by one (T of them).

    Attributes:
        losses: (T,) float32.
        owner: (T,) the sample in the batch that each belongs to.
        hidden: (T, D) the states that the logits are made from.
    """

    losses: torch.Tensor
    owner: torch.Tensor
    hidden: torch.Tensor


@dataclass(frozen=True, slots=True)
class LossOutput:
    """Sum of the token losses and how many tokens it covers, so that the trainer chooses the normalisation.

    ``detail`` is there when it was asked for (a family's optional method ``detailed_loss``).
    """

    loss_sum: torch.Tensor
    num_targets: torch.Tensor
    detail: TargetDetail | None = None


@dataclass(frozen=True, slots=True)
class LoraSites:
    """Where a family takes low-rank weights (its optional method ``lora_sites``).

    Attributes:
        pattern: regular expression that matches the full names of the linear layers.
        full: names of the parts that are trained in full beside them.
        base: how the model that they belong to is called.
    """

    pattern: str
    full: tuple[str, ...]
    base: str


@dataclass(frozen=True, slots=True)
class ShardUnits:
    """How a family's weights are split among processes (its optional method ``shard_units``).

    The method also makes the model run every unit in every pass, whatever is in the batch: all processes exchange
    weights at the same time.

    Attributes:
        modules: whole only while they are at work, in the order in which they work.
        whole: kept whole in every process: frozen parts that only some batches need.
    """

    modules: tuple[nn.Module, ...]
    whole: tuple[nn.Module, ...]


class Processor(Protocol):
    """Turns records into batches; text first, pixels only for what is really trained on."""

    def encode(self, conversation: Conversation) -> Example | Rejected:
        """Tokens and labels of a record. Cheap: no picture is opened."""
        ...

    def load_pixels(self, example: Example) -> list[Pixels]:
        """Decode the example's pictures. Raises DataError naming a missing or damaged file."""
        ...

    def collate(self, examples: Sequence[Example], pixels: Sequence[Sequence[Pixels]]) -> Batch:
        """One padded batch; ``pixels[i]`` belongs to ``examples[i]``."""
        ...


class ModelFamily(Protocol):
    """All that the trainer needs of a model family.

    Loading with ``dtype=None`` gives parameters as they are stored, mapped from their files: whoever reads the same
    files on the same machine shares that memory. They must not be written to; what an adapter is loaded into is
    float32 in memory of its own.
    """

    name: str

    def load_base(self, spec: BaseFolders, *, dtype: torch.dtype | None, seed: int) -> nn.Module:
        """The start of stage 1: base models plus fresh connecting parts drawn from ``seed``."""
        ...

    def load_checkpoint(self, folder: Path, *, dtype: torch.dtype | None, model_zoo: Path | None = None) -> nn.Module:
        """A full checkpoint, towers included."""
        ...

    def load_adapter(self, model: nn.Module, path: Path) -> list[str]:
        """Load what stage 1 trained into a model; returns the loaded names, raises on any mismatch."""
        ...

    def processor(
        self, model_or_folder: nn.Module | Path, *, image_aspect_ratio: str, max_length: int, image_root: Path
    ) -> Processor:
        """The processor that fits a model or a checkpoint folder."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Loss of a collated batch (moved to the model's device by the caller)."""
        ...

    def trainable(self, model: nn.Module, stage: int) -> list[tuple[str, nn.Parameter]]:
        """The parameters of a stage, by name; every other parameter is frozen."""
        ...

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """Write what stage 1 trained, and the config."""
        ...

    def save_checkpoint(self, model: nn.Module, folder: Path, *, dtype: torch.dtype) -> None:
        """Write a full checkpoint: weights, config, tokenizer."""
        ...


def family_names() -> list[str]:
    """The families there are: folders beside this file that hold a ``family.py``."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/family.py"))


def load_family(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        ConfigError: there is no such family.
    """
    known = family_names()
    if name not in known:
        raise ConfigError(
            t("unknown model family '{name}'", name=name),
            expected=t("one of: {names}", names=", ".join(known)),
            hint=did_you_mean(name, known),
        )
    family: ModelFamily = importlib.import_module(f"bettersynth.models.{name}.family").FAMILY
    return family
