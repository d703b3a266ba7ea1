"""What the torch backends share: device and precision, one thread on the CPU, pictures as normalised tensors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.media.resize import CLIP_MEAN, CLIP_STD

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def choose_device(device: str) -> tuple[torch.device, torch.dtype]:
    """Device and precision: fp32 on the CPU, bf16 (fp16 where the GPU has no bf16) on CUDA.

    Raises:
        ConfigError: CUDA is asked for and not there, or the name is unknown.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        device = "cuda" if available else "cpu"
    if device.startswith("cuda"):
        if not available:
            raise ConfigError(t("no CUDA device is available"), got=device, hint=t("use device: cpu"))
        _check_number(device)
        return torch.device(device), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device != "cpu":
        raise ConfigError(t("unknown device"), got=device, expected="auto, cpu, cuda, cuda:N")
    return torch.device("cpu"), torch.float32


def _check_number(device: str) -> None:
    """Raise ConfigError unless ``cuda`` or ``cuda:N`` names a device of this machine."""
    import torch

    count = torch.cuda.device_count()
    _, colon, number = device.partition(":")
    if (colon and not number.isdigit()) or int(number or 0) >= count:
        names = ", ".join(f"cuda:{index}" for index in range(count))
        raise ConfigError(t("the device is not there"), where="device", got=device, expected=f"auto, cpu, {names}")


@contextlib.contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """No gradients; on the CPU one thread, so that sums come out the same in every process layout."""
    import torch

    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def load_pretrained(cls: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """A transformers model from a local folder (safetensors or weights-only pickle), in eval mode.

    Raises:
        DataError: weights are missing or damaged.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = cls.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(t("cannot load the model"), where=str(folder), got=str(error).splitlines()[0]) from error
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        DataError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(t("cannot load the tokenizer"), where=str(folder), got=str(error).splitlines()[0]) from error


class Pixels:
    """Resize, crop, scale and normalise as a folder's ``preprocessor_config.json`` says.

    Steps and rounding are those of transformers' PIL processors: resize on uint8, then floats.
    """

    def __init__(self, folder: Path, default_px: int) -> None:
        path = folder / "preprocessor_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.size = config.get("size", {"shortest_edge": default_px})
        self.size = {"shortest_edge": self.size} if isinstance(self.size, int) else self.size
        crop = config.get("crop_size", default_px)
        self.crop = (crop, crop) if isinstance(crop, int) else (crop["width"], crop["height"])
        self.do_crop = bool(config.get("do_center_crop", "shortest_edge" in self.size))
        self.resample = config.get("resample", 3)
        self.mean = np.array(config.get("image_mean", CLIP_MEAN), np.float32)
        self.std = np.array(config.get("image_std", CLIP_STD), np.float32)

    def __call__(self, images: Sequence[Image]) -> torch.Tensor:
        """[B, 3, H, W] float32."""
        import torch

        arrays = [(np.asarray(self._shape(image), np.float32) / 255 - self.mean) / self.std for image in images]
        return torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())

    def _shape(self, image: Image) -> Image:
        width, height = image.size
        if "shortest_edge" in self.size:
            edge, short, long = self.size["shortest_edge"], min(width, height), max(width, height)
            other = int(edge * long / short)
            target = (edge, other) if width <= height else (other, edge)
        else:
            target = (self.size["width"], self.size["height"])
        image = image if image.size == target else image.resize(target, resample=self.resample)
        if not self.do_crop or image.size == self.crop:
            return image
        left, top = (image.width - self.crop[0]) // 2, (image.height - self.crop[1]) // 2
        return image.crop((left, top, left + self.crop[0], top + self.crop[1]))
