"""Records to packed batches for BAGEL: every random number depends on the sample and the step, never on the packing.

So the same samples give the same loss and gradients however they are put together: one by one, in packs, on one
process or on several.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import Conversation
from bettersynth.core.seed import derive_seed
from bettersynth.media.open import open_image
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.bagel.packing import NO_DROPOUT, Dropout, Packed, Sample, patchify
from bettersynth.models.bagel.records import Picture, RecordEncoder, UnifiedExample
from bettersynth.models.bagel.resize import to_pixels
from bettersynth.models.bagel.vision import VitEncoder
from bettersynth.models.family import Batch, Pixels, Rejected
from bettersynth.models.layers.positions import patch_ids


class PictureStore(Protocol):
    """Keeps what frozen networks make of a picture of a size, by kind (``vae_image``, ``vit_image``)."""

    def get(self, kind: str, path: Path, size: tuple[int, int]) -> Pixels | None:
        """What is kept, or None."""
        ...

    def put(self, kind: str, path: Path, size: tuple[int, int], array: Pixels) -> None:
        """Keep it, if there is room."""
        ...


@dataclass(frozen=True)
class UnifiedProcessor:
    """The processor of one BAGEL model; see :class:`bettersynth.models.family.Processor`.

    Pictures to be drawn are handed on as the moments of their latents, encoded one by one, so that a latent depends on
    its own picture alone (zero padding would change the encoder's norms) and is computed once for all epochs.

    Attributes:
        encoder: records to examples.
        autoencoder: of the model; None when no picture is drawn.
        seed: of dropout, times, noise and latents.
        dropout: probabilities of leaving conditions out.
        sample_posterior: whether latents are drawn or the mean is taken.
        is_reweighted: whether a text counts 1 / sqrt(length) per token, or each token 1.
        vision: the frozen vision encoder; None while it is trained.
        vision_dtype: type that it computes in.
        store: keeps latents and features for other runs.
    """

    encoder: RecordEncoder
    autoencoder: AutoEncoder | None
    seed: int = 0
    dropout: Dropout = NO_DROPOUT
    sample_posterior: bool = True
    is_reweighted: bool = False
    vision: VitEncoder | None = None
    vision_dtype: torch.dtype = torch.float32
    store: PictureStore | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def config(self) -> BagelConfig:
        """Sizes of the model."""
        return self.encoder.config

    @property
    def image_root(self) -> Path:
        """Folder that picture paths start from."""
        return self.encoder.image_root

    def encode(self, conversation: Conversation) -> UnifiedExample | Rejected:
        """See :meth:`RecordEncoder.encode`."""
        return self.encoder.encode(conversation)

    def load_pixels(self, example: UnifiedExample) -> list[Pixels]:
        """Per picture of the plan: uint8 (H, W, 3) to be seen, or float32: (2 Z, h, w) moments of its latents, (N, C)
        features of the frozen vision encoder.

        Raises:
            DataError: a missing or damaged picture, by file and record.
        """
        return [self._load(picture, example.key) for picture in example.images]

    def _load(self, picture: Picture, key: str) -> Pixels:
        path = self.image_root / picture.path
        is_raw = picture.kind == "vit_image" and self.vision is None
        store = None if is_raw else self.store
        found = None if store is None else store.get(picture.kind, path, picture.size)
        if found is not None:
            return found
        image = open_image(path, name=f"{path} ({key})")
        size = (picture.size[1], picture.size[0])
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        if is_raw:
            return np.asarray(image)
        made = self.moments(to_pixels(image)) if picture.kind == "vae_image" else self.features(np.asarray(image))
        if store is not None:
            store.put(picture.kind, path, picture.size, made)
        return made

    @torch.no_grad()
    def features(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> (N, C) float32 of the frozen vision encoder, the picture alone."""
        assert self.vision is not None
        config, patch = self.config, self.config.vit.patch_size
        device = next(self.vision.parameters()).device
        rows, cols = image.shape[0] // patch, image.shape[1] // patch
        ids = patch_ids(rows, cols, config.vit_max_num_patch_per_side, interpolate=config.interpolate_pos).to(device)
        patches = patchify(_to_unit(image), patch).to(device)
        is_cast = self.vision_dtype != torch.float32
        with self._lock, torch.autocast(device.type, dtype=self.vision_dtype if is_cast else None, enabled=is_cast):
            found = self.vision(patches, ids, [len(ids)])
        return np.asarray(found.float().cpu().numpy())

    @torch.no_grad()
    def moments(self, pixels_3HW: torch.Tensor) -> np.ndarray:
        """(3, H, W) in [-1, 1] -> (2 Z, H/8, W/8) float32: mean and logarithm of the variance."""
        if self.autoencoder is None:
            raise DataError(t("the model has no autoencoder"))
        device = next(self.autoencoder.parameters()).device
        with self._lock, torch.autocast(device.type, enabled=False):
            mean, log_variance = self.autoencoder.moments(pixels_3HW[None].to(device))
        return torch.cat([mean, log_variance], 1)[0].float().cpu().numpy()

    def collate(self, examples: Sequence[UnifiedExample], pixels: Sequence[Sequence[Pixels]]) -> Batch:
        """A packed batch at step 0, sample numbers counted from 0."""
        return self.collate_step(0, range(len(examples)), examples, pixels)

    def collate_step(
        self, step: int, numbers: Sequence[int], examples: Sequence[UnifiedExample], pixels: Sequence[Sequence[Pixels]]
    ) -> Batch:
        """One packed batch of a training step; ``numbers[i]`` is the sample's number in the data set."""
        pack = Packed(self.config)
        seen: list[torch.Tensor] = []
        latents: list[torch.Tensor] = []
        noise: list[torch.Tensor] = []
        patch, width = self.config.vit.patch_size, self.config.vit.num_channels * self.config.vit.patch_size**2
        for number, example, arrays in zip(numbers, examples, pixels, strict=True):
            seed = derive_seed(self.seed, "unified", step, int(number))
            pack.add(example.sample, random.Random(seed), self.dropout)
            generator = torch.Generator().manual_seed(seed)
            for index, kind in pack.image_choice[-1]:
                if kind == "vit_image" and self.vision is not None:
                    seen.append(torch.from_numpy(arrays[index]))
                elif kind == "vit_image":
                    seen.append(patchify(_to_unit(arrays[index]), patch))
                else:
                    latent, drawn = self._latent(arrays[index], generator)
                    latents.append(latent)
                    noise.append(drawn)
        batch = pack.tensors()
        if not self.is_reweighted:
            batch["ce_loss_weights"] = torch.ones_like(batch["ce_loss_weights"])
        if seen and self.vision is not None:
            batch["packed_vit_features"] = torch.cat(seen)
        else:
            batch["packed_vit_tokens"] = torch.cat(seen) if seen else torch.zeros(0, width)
        batch["padded_latent"] = pad_latents(latents, self.config.vae.z_channels)
        batch["noise"] = torch.cat(noise) if noise else torch.zeros(0, self.config.latent_dim)
        return batch

    def blank_batch(self, examples: Sequence[UnifiedExample]) -> Batch:
        """As large a batch as the examples can become, for plans; no picture is opened."""
        batch = blank_batch(self.config, [example.sample for example in examples])
        if self.vision is not None:
            patches = batch.pop("packed_vit_tokens")
            batch["packed_vit_features"] = torch.zeros(len(patches), self.config.vit.hidden_size)
        return batch

    def _latent(self, moments: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A scaled latent (Z, h, w) drawn from its moments, and start noise (N, P) for its tokens."""
        config = self.config
        mean, log_variance = torch.from_numpy(moments).chunk(2)
        eps = torch.randn(mean.shape, generator=generator)
        if self.sample_posterior:
            mean = mean + torch.exp(0.5 * log_variance) * eps
        tokens = (mean.shape[1] // config.latent_patch_size) * (mean.shape[2] // config.latent_patch_size)
        noise = torch.randn(tokens, config.latent_dim, generator=generator)
        return config.vae.scale_factor * (mean - config.vae.shift_factor), noise


def _to_unit(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) -> (3, H, W) in [-1, 1]; the arithmetic of :func:`to_pixels`."""
    values = torch.from_numpy(image.copy()).permute(2, 0, 1)
    return (values.float() / 255 - 0.5) / 0.5


def pad_latents(latents: Sequence[torch.Tensor], channels: int) -> torch.Tensor:
    """(Z, h, w) latents of several sizes -> (B, Z, hmax, wmax); the padding is cut away again by the model."""
    if not latents:
        return torch.zeros(0, channels, 0, 0)
    height, width = (max(latent.shape[axis] for latent in latents) for axis in (1, 2))
    padded = torch.zeros(len(latents), channels, height, width)
    for place, latent in zip(padded, latents, strict=True):
        place[:, : latent.shape[1], : latent.shape[2]] = latent
    return padded


def blank_batch(config: BagelConfig, samples: Sequence[Sample]) -> Batch:
    """The batch that samples become when nothing is dropped, with zeros for pixels, latents and noise."""
    pack = Packed(config)
    for sample in samples:
        pack.add(sample, random.Random(0), NO_DROPOUT)
    batch = pack.tensors()
    channels, patch = config.vae.z_channels, config.latent_patch_size
    shapes = [(rows * patch, cols * patch) for rows, cols in pack.vae_latent_shapes]
    batch["packed_vit_tokens"] = torch.zeros(
        len(pack.packed_vit_position_ids), config.vit.num_channels * config.vit.patch_size**2
    )
    batch["padded_latent"] = pad_latents([torch.zeros(channels, *shape) for shape in shapes], channels)
    batch["noise"] = torch.zeros(len(pack.packed_latent_position_ids), config.latent_dim)
    return batch
