"""Where in the picture is what the phrase names? OWL-ViT in Hugging Face layout, tiny or real."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from bettersynth.infer._torch import Pixels, choose_device, inference, load_pretrained, load_tokenizer
from bettersynth.infer.protocols import Box

if TYPE_CHECKING:
    from PIL.Image import Image


class OwlGrounder:
    """An OWL-ViT of a local folder.

    Args:
        folder: config, weights, tokenizer and ``preprocessor_config.json``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        from transformers import OwlViTForObjectDetection

        self.device, self.dtype = choose_device(device)
        self.model = load_pretrained(OwlViTForObjectDetection, folder, self.device, self.dtype)
        self.tokenizer = load_tokenizer(folder)
        side = self.model.config.vision_config.image_size
        self.pixels = Pixels(folder, side)
        self.max_tokens = self.model.config.text_config.max_position_embeddings
        self.digest = str(folder)

    def ground(self, image: Image, phrases: Sequence[str], at_most: int) -> list[Box]:
        """The best places, best first: sigmoid of each place's largest logit over the phrases."""
        import torch

        tokens = self.tokenizer(
            list(phrases), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        with inference(self.device):
            out = self.model(
                input_ids=tokens["input_ids"].to(self.device),
                attention_mask=tokens["attention_mask"].to(self.device),
                pixel_values=self.pixels([image]).to(self.device, self.dtype),
            )
            best_P, phrase_P = out.logits[0].float().max(-1)
            order = torch.argsort(best_P, descending=True, stable=True)[:at_most]
            scores = best_P[order].sigmoid().tolist()
            boxes = out.pred_boxes[0][order].float().tolist()  # centre x, centre y, width, height; 0 to 1
        found = []
        for score, number, (x, y, width, height) in zip(scores, phrase_P[order].tolist(), boxes, strict=True):
            left, top = (x - width / 2) * image.width, (y - height / 2) * image.height
            found.append(Box(number, score, left, top, left + width * image.width, top + height * image.height))
        return found
