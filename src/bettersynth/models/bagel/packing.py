"""Samples to one packed sequence: ids, rotary positions, splits, losses.

A sample is a plan, consumed in order together with its texts and pictures. How each item is written:

| item | tokens | rotary ids | attention | loss |
| --- | --- | --- | --- | --- |
| text | bos, ids, eos | r, r + 1, ... | causal | cross-entropy of ids and eos, if asked for |
| vit_image | start, h * w, end | all r; then r + 1 | full | none |
| vae_image without loss | start, h * w, end | all r; then r + 1 | full | none, time 0 |
| vae_image with loss | start, h * w, end | all r; r stays | noise | squared error on the latents |

A query sees a key of the same sample if the key is not later, or in the same full or noise split; nobody outside a
noise split sees it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.layers.masks import CAUSAL, FULL, NOISE
from bettersynth.models.layers.positions import patch_ids

MODES = ("causal", "full", "noise")
KINDS = ("text", "vit_image", "vae_image")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanItem:
    """One text or picture of a sample.

    Attributes:
        type: ``text``, ``vit_image`` (to be understood) or ``vae_image`` (as latents).
        enable_cfg: whether it may be dropped, so that guidance has something to compare with.
        loss: whether it is learnt.
        special_token_loss: whether the closing marker also gets a target.
        special_token_label: that target.
        split_start, split_end: False inside a video, whose frames share one split.
        frame_delta: rotary ids between this frame and the next.
    """

    type: str
    enable_cfg: bool = False
    loss: bool = False
    special_token_loss: bool = False
    special_token_label: int | None = None
    split_start: bool = True
    split_end: bool = True
    frame_delta: int | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlanItem:
        """From a plan in JSON, where flags are 0 and 1.

        Raises:
            DataError: unknown type.
        """
        known = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        for key in ("enable_cfg", "loss", "special_token_loss", "split_start", "split_end"):
            if key in known:
                known[key] = bool(known[key])
        if known.get("type") not in KINDS:
            raise DataError(
                t("unknown type of plan item"),
                got=known.get("type"),
                expected=t("one of: {names}", names=", ".join(KINDS)),
            )
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Sample:
    """A plan with what it needs: token ids per text, and (height, width) in pixels per picture, in plan order."""

    plan: tuple[PlanItem, ...]
    text_ids: tuple[tuple[int, ...], ...]
    image_sizes: tuple[tuple[int, int], ...]

    def num_tokens(self, config: BagelConfig) -> int:
        """Length of the sample when nothing is dropped."""
        sizes, texts, total = iter(self.image_sizes), iter(self.text_ids), 0
        for item in self.plan:
            if item.type == "text":
                total += len(next(texts)) + 2
            else:
                stride = config.vit.patch_size if item.type == "vit_image" else config.latent_stride_px
                height, width = next(sizes)
                total += (height // stride) * (width // stride) + 2
        return total


@dataclass(frozen=True, slots=True)
class Dropout:
    """Probabilities with which a droppable text, ViT picture or VAE picture is left out."""

    text: float = 0.1
    vit: float = 0.3
    vae: float = 0.3

    def of(self, kind: str) -> float:
        """The probability for an item of that type."""
        return {"text": self.text, "vit_image": self.vit, "vae_image": self.vae}[kind]


NO_DROPOUT = Dropout(0.0, 0.0, 0.0)


@dataclass
class Packed:
    """Lists of one packed sequence; the names are those of the original's batches.

    ``image_choice`` tells, for each sample, which pictures are in the pack (index, type), in order.
    """

    config: BagelConfig
    packed_text_ids: list[int] = field(default_factory=list)
    packed_text_indexes: list[int] = field(default_factory=list)
    packed_position_ids: list[int] = field(default_factory=list)
    packed_label_ids: list[int] = field(default_factory=list)
    ce_loss_indexes: list[int] = field(default_factory=list)
    ce_loss_weights: list[float] = field(default_factory=list)
    packed_vit_token_indexes: list[int] = field(default_factory=list)
    packed_vit_position_ids: list[int] = field(default_factory=list)
    vit_token_seqlens: list[int] = field(default_factory=list)
    packed_vae_token_indexes: list[int] = field(default_factory=list)
    packed_latent_position_ids: list[int] = field(default_factory=list)
    vae_latent_shapes: list[tuple[int, int]] = field(default_factory=list)
    packed_timesteps: list[float] = field(default_factory=list)
    mse_loss_indexes: list[int] = field(default_factory=list)
    sample_lens: list[int] = field(default_factory=list)
    split_lens: list[int] = field(default_factory=list)
    attn_modes: list[int] = field(default_factory=list)
    image_choice: list[list[tuple[int, str]]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.packed_position_ids)

    def add(self, sample: Sample, rng: random.Random, dropout: Dropout = NO_DROPOUT) -> None:
        """Append one sample. Dropouts and times are drawn from ``rng`` alone."""
        _Writer(self, sample, rng, dropout).write()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The lists as tensors; pixels and latents are added by the caller."""
        ints = {name: torch.tensor(getattr(self, name), dtype=torch.int64) for name in _INT_LISTS}
        shapes = torch.tensor(self.vae_latent_shapes, dtype=torch.int64).view(-1, 2)
        return {
            **ints,
            "patchified_vae_latent_shapes": shapes,
            "ce_loss_weights": torch.tensor(self.ce_loss_weights, dtype=torch.float32),
            "packed_timesteps": torch.tensor(self.packed_timesteps, dtype=torch.float32),
        }


_INT_LISTS = (
    *("packed_text_ids", "packed_text_indexes", "packed_position_ids", "packed_label_ids", "ce_loss_indexes"),
    *("packed_vit_token_indexes", "packed_vit_position_ids", "vit_token_seqlens", "packed_vae_token_indexes"),
    *("packed_latent_position_ids", "mse_loss_indexes", "sample_lens", "split_lens", "attn_modes"),
)


class _Writer:
    """Appends one sample to a pack, item by item."""

    def __init__(self, pack: Packed, sample: Sample, rng: random.Random, dropout: Dropout) -> None:
        self.pack, self.sample, self.rng, self.dropout = pack, sample, rng, dropout
        self.rope = 0
        self.split_begin = self.begin = pack.length
        self.split_mode = CAUSAL
        self.timestep = -math.inf
        self.chosen: list[tuple[int, str]] = []

    def write(self) -> None:
        texts, images = iter(self.sample.text_ids), iter(enumerate(self.sample.image_sizes))
        try:
            for item in self.sample.plan:
                source = next(texts) if item.type == "text" else next(images)
                if item.enable_cfg and self.rng.random() < self.dropout.of(item.type):
                    self.rope += 0 if item.type == "text" else 1
                elif item.type == "text":
                    self._text(item, source)  # type: ignore[arg-type]
                else:
                    self._image(item, *source)  # type: ignore[arg-type]
        except StopIteration:
            raise DataError(t("the plan names more texts or pictures than the sample holds")) from None
        self.pack.sample_lens.append(self.pack.length - self.begin)
        self.pack.image_choice.append(self.chosen)

    def _text(self, item: PlanItem, ids: Sequence[int]) -> None:
        pack, special, start = self.pack, self.pack.config.special, self.pack.length
        count = len(ids) + 2
        pack.packed_text_ids += [special.bos, *ids, special.eos]
        pack.packed_text_indexes += range(start, start + count)
        pack.packed_position_ids += range(self.rope, self.rope + count)
        if item.loss:
            pack.packed_label_ids += [*ids, special.eos]
            pack.ce_loss_indexes += range(start, start + count - 1)
            pack.ce_loss_weights += [1.0 / math.sqrt(count - 1)] * (count - 1)
        self._closing_target(item)
        self.rope += count
        self._split(start, CAUSAL)

    def _image(self, item: PlanItem, index: int, size: tuple[int, int]) -> None:
        pack, special = self.pack, self.pack.config.special
        is_vit = item.type == "vit_image"
        stride = pack.config.vit.patch_size if is_vit else pack.config.latent_stride_px
        rows, cols = size[0] // stride, size[1] // stride
        count = rows * cols
        start = pack.length
        if item.split_start:
            self.split_begin = start
            # A frame that says when the next one comes starts a video: its frames see each other and are seen.
            self.split_mode = NOISE if item.loss and item.frame_delta is None else FULL
            self.timestep = self.rng.gauss(0.0, 1.0) if item.loss else -math.inf
        pack.packed_text_ids += [special.image_start, special.image_end]
        pack.packed_text_indexes += [start, start + count + 1]
        pack.packed_position_ids += [self.rope] * (count + 2)
        tokens = range(start + 1, start + 1 + count)
        if is_vit:
            self._vit_tokens(tokens, rows, cols)
        else:
            self._vae_tokens(item, tokens, rows, cols)
        self.chosen.append((index, item.type))
        self._closing_target(item)
        if item.frame_delta is not None:
            self.rope += item.frame_delta
        elif not item.loss:
            self.rope += 1
        if item.split_end:
            self._split(self.split_begin, self.split_mode)

    def _vit_tokens(self, tokens: range, rows: int, cols: int) -> None:
        pack, config = self.pack, self.pack.config
        ids = patch_ids(rows, cols, config.vit_max_num_patch_per_side, interpolate=config.interpolate_pos)
        pack.packed_vit_token_indexes += tokens
        pack.packed_vit_position_ids += ids.tolist()
        pack.vit_token_seqlens.append(len(tokens))

    def _vae_tokens(self, item: PlanItem, tokens: range, rows: int, cols: int) -> None:
        pack, config = self.pack, self.pack.config
        ids = patch_ids(rows, cols, config.max_latent_size, interpolate=config.interpolate_pos)
        pack.packed_vae_token_indexes += tokens
        pack.packed_latent_position_ids += ids.tolist()
        pack.vae_latent_shapes.append((rows, cols))
        pack.packed_timesteps += [self.timestep if item.loss else -math.inf] * len(tokens)
        if item.loss:
            pack.mse_loss_indexes += tokens

    def _closing_target(self, item: PlanItem) -> None:
        if item.special_token_loss and item.special_token_label is not None:
            self.pack.ce_loss_indexes.append(self.pack.length - 1)
            self.pack.packed_label_ids.append(item.special_token_label)
            self.pack.ce_loss_weights.append(1.0)

    def _split(self, begin: int, mode: int) -> None:
        self.pack.split_lens.append(self.pack.length - begin)
        self.pack.attn_modes.append(mode)


def pack_samples(
    config: BagelConfig, samples: Sequence[Sample], *, rng: random.Random, dropout: Dropout = NO_DROPOUT
) -> Packed:
    """One packed sequence of several samples."""
    pack = Packed(config)
    for sample in samples:
        pack.add(sample, rng, dropout)
    return pack


def patchify(pixels_CHW: torch.Tensor, patch: int) -> torch.Tensor:
    """(C, h * patch, w * patch) -> (h * w, patch * patch * C): row-major patches, channel last inside a patch."""
    channels, height, width = pixels_CHW.shape
    rows, cols = height // patch, width // patch
    cut = pixels_CHW[:, : rows * patch, : cols * patch].reshape(channels, rows, patch, cols, patch)
    return cut.permute(1, 3, 2, 4, 0).reshape(rows * cols, patch * patch * channels)


def unpatchify(tokens: torch.Tensor, rows: int, cols: int, patch: int) -> torch.Tensor:
    """Inverse of :func:`patchify`: (rows * cols, patch * patch * C) -> (C, rows * patch, cols * patch)."""
    cut = tokens.reshape(rows, cols, patch, patch, -1)
    return cut.permute(4, 0, 2, 1, 3).reshape(-1, rows * patch, cols * patch)
