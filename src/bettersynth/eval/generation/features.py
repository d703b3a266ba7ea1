"""What distances between picture sets are measured on: feature extractors by name, and features of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from bettersynth.core.errors import ConfigError, DataError, MissingExtraError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.eval.generation.distances import Floats
from bettersynth.media.open import open_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_BATCH = 16


class FeatureExtractor(Protocol):
    """Pictures to vectors. ``name`` says what it is, ``digest`` names weights and processing."""

    name: str
    digest: str

    def features(self, images: Sequence[Image.Image]) -> Floats:
        """(N, D)."""
        ...


class InceptionFeatures:
    """The 2048 pooled features of FID.

    Args:
        weights: see :mod:`bettersynth.eval.generation.inception`.
        resize: ``tf`` or ``clean``; by default ``clean`` for the TorchScript file, which clean-fid uses.
        device: torch device.
    """

    def __init__(self, weights: Path, *, resize: str = "", device: str = "cpu") -> None:
        from bettersynth.eval.generation import inception

        self.resize = resize or ("clean" if weights.suffix == ".pt" else "tf")
        if self.resize not in inception.RESIZES:
            expected = t("one of: {names}", names=", ".join(inception.RESIZES))
            raise ConfigError(t("unsupported value"), where="resize", got=resize, expected=expected)
        self.model = inception.load_inception(weights).to(device)
        self.device, self.prepare = device, inception.prepare
        self.name = f"inception ({self.resize} resize)"
        self.digest = digest_json({"weights": digest_file(weights), "resize": self.resize})

    def features(self, images: Sequence[Image.Image]) -> Floats:
        """(N, 2048)."""
        import torch

        found = [np.zeros((0, 2048))]
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                batch = torch.stack([self.prepare(image, self.resize) for image in images[start : start + _BATCH]])
                found.append(self.model(batch.to(self.device)).double().cpu().numpy())
        return np.concatenate(found)


class ClipFeatures:
    """Unit vectors of a CLIP's picture side, as CMMD uses them; also the tiny extractor of the demo.

    Args:
        folder: a CLIP in Hugging Face layout, or ``fake``.
        device: torch device.
    """

    def __init__(self, folder: str, *, device: str = "auto") -> None:
        from bettersynth.infer.loader import load_scorer

        self.scorer = load_scorer(folder, device=device)
        self.name, self.digest = f"clip {Path(folder).name}", self.scorer.digest

    def features(self, images: Sequence[Image.Image]) -> Floats:
        """(N, D)."""
        return np.asarray(self.scorer.embed_images([image.convert("RGB") for image in images]), dtype=np.float64)


def load_extractor(spec: str, *, device: str = "auto") -> FeatureExtractor:
    """An extractor by name: ``inception=FILE``, ``inception-clean=FILE``, ``inception-tf=FILE`` or ``clip=FOLDER``.

    Raises:
        ConfigError: another name. DataError: no weights there. MissingExtraError: torch is not installed.
    """
    kind, equals, place = spec.partition("=")
    try:
        if equals and kind == "clip":
            return ClipFeatures(place, device=device)
        if equals and kind.partition("-")[0] == "inception":
            import torch

            found = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
            return InceptionFeatures(Path(place), resize=kind.partition("-")[2], device=found)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("feature extraction"), "train", missing=error.name) from error
    raise ConfigError(
        t("unknown feature extractor"), got=spec, expected="inception=FILE | inception-clean=FILE | clip=FOLDER"
    )


def picture_files(folder: Path) -> list[Path]:
    """Pictures below a folder, in the order of their names.

    Raises:
        DataError: there are none, or no folder.
    """
    if not folder.is_dir():
        raise DataError(t("folder not found"), where=str(folder))
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(t("no pictures here"), where=str(folder), expected=", ".join(SUFFIXES))
    return found


def open_all(paths: Iterable[Path]) -> Iterable[Image.Image]:
    """Decoded pictures one by one; DataError names a damaged one."""
    for path in paths:
        yield open_image(path)


def folder_features(
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Floats:
    """(N, D) of files, a few pictures in memory at a time."""
    pictures, found = iter(open_all(paths)), []
    done = 0
    while batch := list(islice(pictures, _BATCH)):
        found.append(extractor.features(batch))
        done += len(batch)
        progress(done, len(paths))
    return np.concatenate(found)
