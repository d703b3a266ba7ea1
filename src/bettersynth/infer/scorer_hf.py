"""Image-text scores from a CLIP in Hugging Face layout, tiny or real."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np

from bettersynth.infer._torch import Pixels, choose_device, inference, load_pretrained, load_tokenizer
from bettersynth.infer.protocols import FloatArray

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_BATCH = {"cpu": 32, "cuda": 128}


class ClipScorer:
    """A CLIP model of a local folder.

    Args:
        folder: config, weights, tokenizer and ``preprocessor_config.json``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        from transformers import CLIPModel

        self.device, self.dtype = choose_device(device)
        self.model = load_pretrained(CLIPModel, folder, self.device, self.dtype)
        self.tokenizer = load_tokenizer(folder)
        config = self.model.config
        self.pixels = Pixels(folder, config.vision_config.image_size)
        self.max_tokens = config.text_config.max_position_embeddings
        self.digest = str(folder)

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """[N] cosine of each pair times the logit scale / 100 (1 for public CLIPs)."""
        images_ND, texts_ND = self.embed_images(images), self.embed_texts(texts)
        scale = float(self.model.logit_scale.detach().float().exp()) / 100
        scores: FloatArray = (images_ND * texts_ND).sum(1) * scale
        return scores

    def embed_images(self, images: Sequence[Image]) -> FloatArray:
        """[N, D] unit vectors."""

        def encode(batch: Sequence[Image]) -> Any:
            x_BCHW = self.pixels(batch).to(self.device, self.dtype)
            return self.model.visual_projection(self.model.vision_model(pixel_values=x_BCHW).pooler_output)

        return self._in_batches(images, encode)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """[N, D] unit vectors; texts are cut at the model's length. Every text is padded to that length."""

        def encode(batch: Sequence[str]) -> Any:
            tokens = self.tokenizer(
                list(batch), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
            longest = int(tokens["attention_mask"].sum(1).max())
            # Causal attention: what follows a text's end does not touch it, so padding can be cut to the longest.
            ids, mask = (tokens[name][:, :longest].to(self.device) for name in ("input_ids", "attention_mask"))
            return self.model.text_projection(self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output)

        return self._in_batches(texts, encode)

    def _in_batches(self, items: Sequence[Any], encode: Callable[[Sequence[Any]], torch.Tensor]) -> FloatArray:
        import torch

        size = _BATCH.get(self.device.type, 32)
        found = [np.zeros((0, self.model.config.projection_dim), np.float32)]
        with inference(self.device):
            for start in range(0, len(items), size):
                out_BD = encode(items[start : start + size]).float()
                found.append(torch.nn.functional.normalize(out_BD, dim=1).cpu().numpy())
        return np.concatenate(found)
