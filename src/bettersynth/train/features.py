"""Features of frozen vision towers, computed once per picture and kept on disk for all runs that may share them.

Both stages freeze the towers, so their outputs depend on the picture and on the towers only. A store is shared by
stages, epochs, seeds and strategies: one file per picture, written whole (temporary file, then rename), so that
processes may read and write at once and a kill leaves nothing half-written behind.

Sharing must not change a bit of any result. A store is therefore used only after the run that opened it has shown that
this machine computes the same bits for a picture whatever other pictures are in its batch; until then, and for ever
where that does not hold, the towers run on whole batches as if there were no store.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.models.family import Batch, Example, ModelFamily, Pixels, Processor

Tensors = dict[str, torch.Tensor]
FORMAT = 1
SETUP_FILE = "setup.json"
_CHECKED = "is_batch_invariant"
_RECOUNT_BYTES = 64 << 20
_SMALLEST_CHECK = 4


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one forward pass.

    Attributes:
        keys: digest of the picture in each place.
        known: features found in the store, by digest.
        pixels: decoded pictures whose features are still to be computed, by digest.
    """

    keys: tuple[str, ...]
    known: Mapping[str, Tensors]
    pixels: Mapping[str, Pixels]


class FeatureStore:
    """Features by picture in a folder of its own for everything else that decides their bits.

    Args:
        root: the shared cache; ``setup`` gets a folder in it.
        setup: towers, sizes, precision and machine.
        limit_bytes: nothing more is written when the whole cache holds this much. Writers count for themselves between
            two looks at the folder, so that each may overshoot by 64 MiB.
    """

    def __init__(self, root: Path, setup: Mapping[str, Any], limit_bytes: int) -> None:
        self.root, self.folder = root, root / digest_json({"format": FORMAT, **setup})
        self._setup, self._limit_bytes = dict(setup), limit_bytes
        self._verified: set[str] = set()
        self._held_bytes = self._uncounted_bytes = 0
        self._is_counted = False
        self.is_invariant = self._read_check()

    def _read_check(self) -> bool | None:
        try:
            found = json.loads((self.folder / SETUP_FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return bool(found.get(_CHECKED)) if isinstance(found, dict) else None

    def record_check(self, is_invariant: bool) -> None:
        """Say for all later runs whether features may be shared between batches on this machine."""
        self.is_invariant = is_invariant
        text = json.dumps({**self._setup, _CHECKED: is_invariant}, indent=1, sort_keys=True)
        write_atomic(self.folder / SETUP_FILE, text.encode())

    def path(self, key: str) -> Path:
        """The file of a picture."""
        return self.folder / key[:2] / key[2:]

    def get(self, key: str) -> Tensors | None:
        """Features of a picture; None when there are none, or when the file is damaged (it is then made again)."""
        if not self.is_invariant:
            return None
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        body = memoryview(data)[4:]
        if key not in self._verified:
            if zlib.crc32(body).to_bytes(4, "big") != data[:4]:
                return None
            self._verified.add(key)
        try:
            return load(bytes(body))
        except (SafetensorError, ValueError):
            return None

    def put(self, key: str, features: Tensors) -> None:
        """Keep the features of a picture if the limit allows it. A full disk is no error: the store is only a help."""
        body = save({name: tensor.cpu().contiguous() for name, tensor in features.items()})
        if not self._is_counted or self._uncounted_bytes >= _RECOUNT_BYTES:
            self._held_bytes = sum(path.stat().st_size for path in self.root.glob("*/*/*") if path.is_file())
            self._uncounted_bytes, self._is_counted = 0, True
        if self._held_bytes + self._uncounted_bytes + len(body) > self._limit_bytes:
            return
        path = self.path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(zlib.crc32(body).to_bytes(4, "big") + body)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            return
        self._uncounted_bytes += len(body)


class FeatureSource:
    """What the loader asks for pictures, and the trainer for their features.

    Args:
        store: where features are kept.
        compute: uint8 pictures (I, H, W, 3) on the model's device -> tensors with one row per picture.
        image_root: folder that picture paths start from.
    """

    def __init__(self, store: FeatureStore, compute: Callable[[torch.Tensor], Tensors], image_root: Path) -> None:
        self.store, self._compute, self._root = store, compute, image_root
        self._digests: dict[str, str] = {}

    def look_up(self, example: Example, load_pixels: Callable[[Example], Sequence[Pixels]]) -> Pictures:
        """The pictures of one example; only what the store lacks is decoded.

        Raises:
            DataError: a picture is missing, or must be decoded and is damaged.
        """
        keys = tuple(self._digest(image.path, example.key) for image in example.images)
        found = {key: self.store.get(key) for key in dict.fromkeys(keys)}
        known = {key: features for key, features in found.items() if features is not None}
        if len(known) == len(found):
            return Pictures(keys, known, {})
        pixels = dict(zip(keys, load_pixels(example), strict=True))
        return Pictures(keys, known, {key: array for key, array in pixels.items() if key not in known})

    def _digest(self, name: str, key: str) -> str:
        if name not in self._digests:
            path = self._root / name
            try:
                self._digests[name] = digest_file(path)
            except OSError as error:
                raise DataError(t("cannot read the picture"), where=f"{path} ({key})", got=error.strerror) from error
        return self._digests[name]

    def features(self, pictures: Pictures, device: torch.device) -> Batch:
        """One tensor per kind of feature, a row for each place; what was missing is computed and kept."""
        ready = dict(pictures.known)
        if self.store.is_invariant is not True:
            return self._whole(pictures, device)
        missing = [key for key in pictures.pixels if key not in ready]
        if missing:
            computed = self._run([pictures.pixels[key] for key in missing], device)
            for row, key in enumerate(missing):
                ready[key] = {name: tensor[row] for name, tensor in computed.items()}
                self.store.put(key, ready[key])
        names = list(next(iter(ready.values())))
        return {name: torch.stack([ready[key][name].to(device) for key in pictures.keys]) for name in names}

    def _run(self, pixels: Sequence[Pixels], device: torch.device) -> Tensors:
        # One picture alone takes other kernels (matrix times vector) and gets other bits; two are the smallest batch.
        stacked = [*pixels, *pixels] if len(pixels) == 1 else list(pixels)
        return self._compute(torch.stack([torch.from_numpy(array.copy()) for array in stacked]).to(device))

    def _whole(self, pictures: Pictures, device: torch.device) -> Batch:
        """All pictures at once, as without a store; the first batch that is large enough decides about sharing."""
        pixels = torch.stack([torch.from_numpy(pictures.pixels[key].copy()) for key in pictures.keys]).to(device)
        whole = self._compute(pixels)
        if self.store.is_invariant is None and len(pixels) >= _SMALLEST_CHECK:
            half = len(pixels) // 2
            parts = [pixels[:2], pixels[2:]], [pixels[:half], pixels[half:]], [pixels.flip(0)]
            joined = [{n: torch.cat([self._compute(p)[n] for p in part]) for n in whole} for part in parts]
            joined[-1] = {name: tensor.flip(0) for name, tensor in joined[-1].items()}
            is_same = all(torch.equal(one[name], whole[name]) for one in joined for name in whole)
            self.store.record_check(is_same)
            for row, key in enumerate(pictures.keys if is_same else ()):
                self.store.put(key, {name: tensor[row] for name, tensor in whole.items()})
        return whole


def open_features(
    config: StageConfig, family: ModelFamily, model: nn.Module, processor: Processor
) -> FeatureSource | None:
    """The feature source of a stage; None when it is switched off or the family cannot run its towers alone."""
    compute = getattr(family, "tower_features", None)
    if config.feature_cache is None or compute is None:
        return None
    device = next((p.device for p in model.parameters() if p.is_cuda), torch.device("cpu"))
    setup = {
        "towers": family.tower_digest(model),  # type: ignore[attr-defined]
        "image_size_aux": getattr(processor, "image_size_aux", None),
        "image_aspect_ratio": config.image_aspect_ratio,
        "precision": config.precision,
        "tf32": config.tf32,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
    }
    store = FeatureStore(config.feature_cache, setup, config.feature_cache_bytes)
    return FeatureSource(store, lambda pixels: compute(model, pixels), config.images)
