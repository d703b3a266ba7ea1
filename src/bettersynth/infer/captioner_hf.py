"""Captions and their likelihood from a BLIP or BLIP-2 (OPT) in Hugging Face layout, tiny or real."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.infer._torch import Pixels, choose_device, inference, load_pretrained, load_tokenizer
from bettersynth.infer.loader import model_type
from bettersynth.infer.protocols import TextNll

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_BATCH = {"cpu": 64, "cuda": 64}


class BlipCaptioner:
    """A captioner of a local folder.

    Args:
        folder: config, weights, tokenizer and ``preprocessor_config.json``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: a BLIP-2 whose language model is no decoder-only one (only OPT variants are read).
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        from transformers import Blip2ForConditionalGeneration, BlipForConditionalGeneration

        self.device, self.dtype = choose_device(device)
        self.is_blip2 = model_type(folder) == "blip-2"
        cls = Blip2ForConditionalGeneration if self.is_blip2 else BlipForConditionalGeneration
        self.model = load_pretrained(cls, folder, self.device, self.dtype)
        self.tokenizer = load_tokenizer(folder)
        self.config = self.model.config
        if self.is_blip2 and not self.config.use_decoder_only_language_model:
            raise ConfigError(t("only BLIP-2 models with an OPT language model are read"), where=str(folder))
        self.pixels = Pixels(folder, self.config.vision_config.image_size)
        self.digest = str(folder)

    def caption(
        self, images: Sequence[Image], *, seeds: Sequence[int] | None = None, max_new_tokens: int = 64, prompt: str = ""
    ) -> list[str]:
        """One caption per picture, stripped: greedy without seeds, else sampled picture by picture."""
        import torch

        found: list[str] = []
        with inference(self.device):
            for batch, batch_seeds in self._groups(images, seeds):
                seen_BPD = self._see(batch)
                if batch_seeds is not None:
                    torch.manual_seed(batch_seeds[0] & (2**63 - 1))
                options = {"do_sample": seeds is not None, "num_beams": 1, "max_new_tokens": max_new_tokens}
                write = self._write_blip2 if self.is_blip2 else self._write_blip
                ids_BL = write(seen_BPD, prompt, options)
                texts = self.tokenizer.batch_decode(ids_BL, skip_special_tokens=True)
                found.extend(text.strip() for text in texts)
        return found

    def nll(self, images: Sequence[Image], texts: Sequence[str]) -> list[TextNll]:
        """Negative log-likelihood of each text's tokens after its start token, given the picture."""
        found: list[TextNll] = []
        size = _BATCH.get(self.device.type, 32)
        with inference(self.device):
            for start in range(0, len(images), size):
                found.extend(self._judge(images[start : start + size], list(texts[start : start + size])))
        return found

    def _groups(
        self, images: Sequence[Image], seeds: Sequence[int] | None
    ) -> Iterator[tuple[Sequence[Image], Sequence[int] | None]]:
        size = 1 if seeds is not None else _BATCH.get(self.device.type, 32)
        for start in range(0, len(images), size):
            yield images[start : start + size], None if seeds is None else seeds[start : start + size]

    def _see(self, images: Sequence[Image]) -> torch.Tensor:
        """[B, P, D] what the text side attends to: BLIP's patch states, or BLIP-2's projected queries."""
        import torch

        x_BCHW = self.pixels(images).to(self.device, self.dtype)
        seen_BPC = self.model.vision_model(pixel_values=x_BCHW).last_hidden_state
        if not self.is_blip2:
            return seen_BPC
        queries_BQC = self.model.query_tokens.expand(len(images), -1, -1).to(seen_BPC.dtype)
        out = self.model.qformer(
            query_embeds=queries_BQC,
            encoder_hidden_states=seen_BPC,
            encoder_attention_mask=torch.ones(seen_BPC.shape[:2], dtype=torch.long, device=self.device),
        )
        return self.model.language_projection(out.last_hidden_state.to(self.dtype))

    def _write_blip(self, seen_BPD: torch.Tensor, prompt: str, options: dict[str, Any]) -> Any:
        import torch

        text = self.config.text_config
        start = [text.bos_token_id]
        if prompt:
            start += self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids_BL = torch.tensor([start] * len(seen_BPD), device=self.device)
        return self.model.text_decoder.generate(
            input_ids=ids_BL,
            attention_mask=torch.ones_like(ids_BL),
            encoder_hidden_states=seen_BPD,
            encoder_attention_mask=torch.ones(seen_BPD.shape[:2], dtype=torch.long, device=self.device),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            **options,
        )

    def _write_blip2(self, seen_BPD: torch.Tensor, prompt: str, options: dict[str, Any]) -> Any:
        import torch

        ids_BL = self.tokenizer([prompt] * len(seen_BPD), return_tensors="pt")["input_ids"].to(self.device)
        x_BLD = torch.cat([seen_BPD, self.model.get_input_embeddings()(ids_BL)], 1)
        mask_BL = torch.ones(x_BLD.shape[:2], dtype=torch.long, device=self.device)
        return self.model.language_model.generate(inputs_embeds=x_BLD, attention_mask=mask_BL, **options)

    def _judge(self, images: Sequence[Image], texts: list[str]) -> list[TextNll]:
        import torch

        tokenizer = self.tokenizer
        tokenizer.padding_side = "right"
        limit = self.config.text_config.max_position_embeddings
        tokens = tokenizer(
            texts, padding=True, truncation=True, max_length=limit - 2, return_tensors="pt", return_offsets_mapping=True
        )
        ids_BL, mask_BL = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        seen_BPD = self._see(images)
        logits_BLV = self._logits(seen_BPD, ids_BL, mask_BL)
        nll_BL = torch.nn.functional.cross_entropy(
            logits_BLV[:, :-1].float().transpose(1, 2), ids_BL[:, 1:], reduction="none"
        ).cpu()
        found = []
        for row in range(len(texts)):
            length = int(mask_BL[row].sum())
            values = tuple(round(value, 5) for value in nll_BL[row, : length - 1].tolist())
            spans = tuple((int(a), int(b)) for a, b in tokens["offset_mapping"][row, 1:length].tolist())
            found.append(TextNll(round(sum(values) / len(values), 5) if values else 0.0, values, spans))
        return found

    def _logits(self, seen_BPD: torch.Tensor, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        import torch

        if self.is_blip2:
            x_BLD = torch.cat([seen_BPD, self.model.get_input_embeddings()(ids_BL)], 1)
            ones_BP = torch.ones(seen_BPD.shape[:2], dtype=mask_BL.dtype, device=self.device)
            out = self.model.language_model(inputs_embeds=x_BLD, attention_mask=torch.cat([ones_BP, mask_BL], 1))
            return out.logits[:, seen_BPD.shape[1] :]
        ids_BL = ids_BL.clone()
        ids_BL[:, 0] = self.config.text_config.bos_token_id  # the decoder's own start token, not the encoder's
        out = self.model.text_decoder(input_ids=ids_BL, attention_mask=mask_BL, encoder_hidden_states=seen_BPD)
        return out.logits
