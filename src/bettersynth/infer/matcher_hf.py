"""Does this text describe this picture? BLIP's matching head in Hugging Face layout, tiny or real."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np

from bettersynth.infer._torch import Pixels, choose_device, inference, load_pretrained, load_tokenizer
from bettersynth.infer.protocols import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = {"cpu": 16, "cuda": 64}


class BlipMatcher:
    """A BLIP for image-text retrieval of a local folder.

    Args:
        folder: config, weights, tokenizer and ``preprocessor_config.json``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        from transformers import BlipForImageTextRetrieval

        self.device, self.dtype = choose_device(device)
        self.model = load_pretrained(BlipForImageTextRetrieval, folder, self.device, self.dtype)
        self.tokenizer = load_tokenizer(folder)
        self.pixels = Pixels(folder, self.model.config.vision_config.image_size)
        self.max_tokens = self.model.config.text_config.max_position_embeddings
        self.digest = str(folder)

    def match(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """[N] probability that each pair belongs together; texts are cut at the model's length."""
        size = _BATCH.get(self.device.type, 16)
        found = [np.zeros(0, np.float32)]
        with inference(self.device):
            for start in range(0, len(images), size):
                tokens = self.tokenizer(
                    list(texts[start : start + size]),
                    padding=True,
                    truncation=True,
                    max_length=self.max_tokens,
                    return_tensors="pt",
                )
                out = self.model(
                    input_ids=tokens["input_ids"].to(self.device),
                    attention_mask=tokens["attention_mask"].to(self.device),
                    pixel_values=self.pixels(images[start : start + size]).to(self.device, self.dtype),
                    use_itm_head=True,
                )
                found.append(out.itm_score.float().softmax(-1)[:, 1].cpu().numpy())
        return np.concatenate(found)
