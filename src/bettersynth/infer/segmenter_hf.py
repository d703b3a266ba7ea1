"""Foreground of pictures from a semantic segmentation model in Hugging Face layout, tiny or real."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from bettersynth.infer._torch import Pixels, choose_device, inference, load_pretrained
from bettersynth.infer.protocols import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image

_BACKGROUND = frozenset(("background", "bg", "unlabeled", "wall", "sky", "floor", "ground"))


class HfSegmenter:
    """A semantic segmentation model of a local folder; classes named like background (or class 0) are background.

    Args:
        folder: config, weights and ``preprocessor_config.json``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        from transformers import AutoModelForSemanticSegmentation

        self.device, self.dtype = choose_device(device)
        self.model = load_pretrained(AutoModelForSemanticSegmentation, folder, self.device, self.dtype)
        self.pixels = Pixels(folder, int(getattr(self.model.config, "image_size", 512)))
        names = self.model.config.id2label
        self.background = [number for number, name in names.items() if str(name).lower() in _BACKGROUND] or [0]
        self.digest = str(folder)

    def foreground(self, images: Sequence[Image]) -> list[FloatArray]:
        """[height, width] probability of not being background, in the picture's own size."""
        import torch

        found: list[FloatArray] = []
        with inference(self.device):
            for image in images:
                logits = self.model(pixel_values=self.pixels([image]).to(self.device, self.dtype)).logits.float()
                size = (image.height, image.width)
                logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
                share = 1 - logits.softmax(1)[0, self.background].sum(0)
                found.append(share.clamp(0, 1).cpu().numpy().astype("float64"))
        return found
