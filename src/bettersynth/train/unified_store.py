"""What frozen networks make of a picture, once for all epochs, and on disk (``feature_cache``) for all runs.

The autoencoder is always frozen; the vision encoder is where ``freeze`` or low-rank training leaves it out. Both take a
picture alone, so what they make of it does not depend on its batch, and sharing changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL
import torch

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_bytes, digest_file
from bettersynth.core.lang import t
from bettersynth.models.bagel.family import unwrap
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.family import Pixels
from bettersynth.train.checkpoint import weights_digest
from bettersynth.train.features import FeatureStore
from bettersynth.train.prepare import COMPUTE_DTYPES

_NAME = "array"


class DiskStore:
    """See :class:`bettersynth.models.bagel.processor.PictureStore`; one folder per kind and network."""

    def __init__(self, stores: dict[str, FeatureStore]) -> None:
        self._stores = stores
        self._digests: dict[Path, str] = {}

    def _key(self, path: Path, size: tuple[int, int]) -> str:
        if path not in self._digests:
            try:
                self._digests[path] = digest_file(path)
            except OSError as error:
                raise DataError(t("cannot read the picture"), where=str(path), got=error.strerror) from error
        return digest_bytes(f"{self._digests[path]} {size[0]}x{size[1]}".encode())

    def get(self, kind: str, path: Path, size: tuple[int, int]) -> Pixels | None:
        """What is kept, or None."""
        found = self._stores[kind].get(self._key(path, size))
        return None if found is None else found[_NAME].numpy()

    def put(self, kind: str, path: Path, size: tuple[int, int], array: Pixels) -> None:
        """Keep it, if there is room."""
        store = self._stores[kind]
        if not store.is_invariant:
            store.record_check(True)
        store.put(self._key(path, size), {_NAME: torch.from_numpy(array)})


def with_frozen_parts(config: StageConfig, model: Any, processor: UnifiedProcessor) -> UnifiedProcessor:
    """The processor that computes once what the model's frozen networks make of a picture. Writes nothing by itself."""
    bagel, settings = unwrap(model), config.unified
    assert settings is not None
    is_frozen = config.lora is not None or not {"vit", "und"}.isdisjoint(settings.freeze)
    vision = bagel.vit_model["vision_model"] if is_frozen else None
    stores: dict[str, FeatureStore] = {}
    if config.feature_cache is not None:
        networks = {"vae_image": bagel._autoencoder[0] if bagel._autoencoder else None, "vit_image": vision}
        for kind, network in networks.items():
            if network is not None:
                precision = config.precision if kind == "vit_image" else "fp32"
                setup = {"kind": kind, "precision": precision, **_setup(config, network.named_parameters())}
                stores[kind] = FeatureStore(config.feature_cache, setup, config.feature_cache_bytes)
    return replace(
        processor,
        vision=vision,
        vision_dtype=COMPUTE_DTYPES[config.precision],
        store=DiskStore(stores) if stores else None,
    )


def _setup(config: StageConfig, parameters: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    named = list(parameters)
    device = named[0][1].device
    return {
        "weights": weights_digest(named),
        "tf32": config.tf32,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
    }
