"""Class logits and ratings of pictures from models in Hugging Face layout, tiny or real."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.infer._torch import Pixels, choose_device, inference, load_pretrained
from bettersynth.infer.loader import architectures
from bettersynth.infer.protocols import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = {"cpu": 32, "cuda": 128}


class HfClassifier:
    """A picture classifier of a local folder: any that transformers' auto class reads, or an aesthetics predictor.

    Aesthetics predictors (CLIP picture vector, unit length, then linear layers; the public ones need remote code) are
    built here from their weights: ``predictor`` (V1) or ``layers`` (V2, linear layers without activations, as their
    authors trained them with an MSE loss).

    Args:
        folder: config, weights and ``preprocessor_config.json``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        self.device, self.dtype = choose_device(device)
        self.digest = str(folder)
        self.head: list[Any] = []
        if any(name.startswith("AestheticsPredictor") for name in architectures(folder)):
            self._load_rating(folder)
            self.labels: tuple[str, ...] = ()
        else:
            from transformers import AutoModelForImageClassification

            self.model = load_pretrained(AutoModelForImageClassification, folder, self.device, self.dtype)
            names = self.model.config.id2label
            self.labels = tuple(names[number] for number in sorted(names))
        self.pixels = Pixels(folder, int(getattr(self.model.config, "image_size", 224)))

    def _load_rating(self, folder: Path) -> None:
        import json

        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings.pop("model_type", None)
        config = CLIPVisionConfig(**{key: value for key, value in settings.items() if key != "architectures"})
        weights = _weights(folder)
        self.model = CLIPVisionModelWithProjection(config)
        own = {name: value for name, value in weights.items() if not name.startswith(("layers.", "predictor."))}
        missing, _ = self.model.load_state_dict(own, strict=False)
        kernels = sorted(
            (name for name in weights if name.startswith(("layers.", "predictor.")) and name.endswith("weight")),
            key=lambda name: [int(part) for part in name.split(".") if part.isdigit()],
        )
        if [name for name in missing if "position_ids" not in name] or not kernels:
            raise DataError(t("cannot load the model"), where=str(folder), got=", ".join(list(missing)[:3]) or "head")
        self.model = self.model.to(self.device, self.dtype).eval()
        for name in kernels:
            pair = (weights[name], weights[name.replace("weight", "bias")])
            self.head.append(tuple(tensor.to(self.device).float() for tensor in pair))

    def logits(self, images: Sequence[Image]) -> FloatArray:
        """[N, C] raw outputs; C is 1 for a rating."""
        import torch

        size = _BATCH.get(self.device.type, 32)
        found = []
        with inference(self.device):
            for start in range(0, len(images), size):
                x_BCHW = self.pixels(images[start : start + size]).to(self.device, self.dtype)
                if not self.head:
                    out_BC = self.model(pixel_values=x_BCHW).logits.float()
                else:
                    out_BC = torch.nn.functional.normalize(self.model(pixel_values=x_BCHW).image_embeds.float(), dim=1)
                    for weight, bias in self.head:
                        out_BC = torch.nn.functional.linear(out_BC, weight, bias)
                found.append(out_BC.cpu().numpy())
        columns = max(1, len(self.labels))
        return np.concatenate(found) if found else np.zeros((0, columns), np.float32)


def _weights(folder: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    if (folder / "model.safetensors").is_file():
        return dict(load_file(folder / "model.safetensors"))
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        raise DataError(t("cannot load the model"), where=str(folder), got="model.safetensors")
    return dict(torch.load(path, map_location="cpu", weights_only=True))
