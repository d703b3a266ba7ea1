"""Our checkpoints as transformers' AutoModelForCausalLM hands them out: ``generate`` with all its options, ``loss``.

Loading and saving are our own (:mod:`load`, :mod:`convert`), so that every public layout is read and what is written
has the original's names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.family import IGNORE_LABEL, IMAGE_MARKER
from bettersynth.models.mgm import convert, load
from bettersynth.models.mgm.auto_config import MgmGemmaConfig, local_folder
from bettersynth.models.mgm.config import MgmConfig
from bettersynth.models.mgm.model import MgmModel


class MgmGemmaForCausalLM(PreTrainedModel, GenerationMixin):
    """MGM behind transformers' interface.

    Args:
        config: of a checkpoint that describes its towers (all that we write do).
        inner: the loaded model; without one a random model of these sizes.
    """

    config_class = MgmGemmaConfig
    base_model_prefix = "inner"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = ("GemmaDecoderLayer",)

    def __init__(self, config: MgmGemmaConfig, inner: MgmModel | None = None) -> None:
        super().__init__(config)
        self.inner = inner if inner is not None else MgmModel(_sizes(config))
        self.generation_config.eos_token_id = config.eos_token_id
        self.generation_config.pad_token_id = config.pad_token_id
        self.generation_config.bos_token_id = config.bos_token_id

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | Path, *_: Any, config: MgmGemmaConfig | None = None, **options: Any
    ) -> MgmGemmaForCausalLM:
        """A checkpoint folder (ours or the original's), or a hub repository's.

        Args:
            options: ``dtype`` (the stored one by default), ``device_map`` (one device), ``attn_implementation``,
                ``model_zoo`` (where towers lie that the checkpoint lacks).
        """
        folder = local_folder(name, options)
        config = config if config is not None else cls.config_class.from_pretrained(folder)
        dtype = options.get("dtype", options.get("torch_dtype", "auto"))
        zoo = options.get("model_zoo")
        inner = load.load_checkpoint(
            folder,
            dtype=_dtype(config, dtype),
            model_zoo=Path(zoo) if zoo else None,
            attention=str(options.get("attn_implementation") or "sdpa"),
        )
        model = cls(config, inner)
        model.eval()
        device = options.get("device_map")
        if isinstance(device, dict):
            device = device.get("")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return model.to(device) if device is not None else model

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write a full checkpoint in the original's layout, in the model's own precision."""
        convert.save_checkpoint(self.inner, Path(save_directory), dtype=self.dtype)

    def get_input_embeddings(self) -> torch.nn.Module:
        """Gemma's embedding; its output is scaled already."""
        return self.inner.model.embed_tokens

    def get_output_embeddings(self) -> None:
        """None: the output head is the embedding itself."""

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Nothing to tie."""

    def embed(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, images: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, L) ids with -200 at picture places -> (B, L, D) scaled, as Gemma takes them."""
        is_image = input_ids == IMAGE_MARKER
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions = is_image.flatten().nonzero().squeeze(-1)
        expected = 0 if images is None else len(images) * self.inner.config.tokens_per_image
        if len(positions) != expected:
            raise DataError(t("places and pictures do not fit"), got=len(positions), expected=str(expected))
        batch = {
            "input_ids": input_ids.masked_fill(is_image, 0),
            "image_positions": positions,
            "attention_mask": mask[:, -input_ids.shape[1] :].bool(),
        }
        if images is not None:
            batch["images"] = images.to(input_ids.device)
        return self.inner.scale(self.inner.embed(batch))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        images: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int = 0,
        **rest: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, L or ``logits_to_keep``, vocabulary), and the mean loss where ``labels`` are not -100.

        Args:
            input_ids: (B, L), -200 at picture places.
            images: (I, S, S, 3) uint8, in the order of their places.
            inputs_embeds: (B, L, D) from :meth:`embed`, in place of ids and images.
            rest: what Gemma takes: ``position_ids``, ``use_cache``, ...
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise DataError(t("needed: {names}", names="input_ids"))
            inputs_embeds = self.embed(input_ids, attention_mask, images)
        allowed = ("position_ids", "use_cache", "cache_position")
        output = self.inner.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **{name: rest[name] for name in allowed if rest.get(name) is not None},
        )
        hidden = output.last_hidden_state
        logits = self.inner.logits(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_LABEL)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)

    @torch.no_grad()
    def generate(self, input_ids: torch.Tensor | None = None, **options: Any) -> Any:
        """transformers' ``generate`` with pictures: they are encoded once, whatever beams or samples follow.

        Returns:
            (B, L + new) ids, the prompt in front; with ``return_dict_in_generate`` what transformers returns.
        """
        images = options.pop("images", None)
        if images is None or input_ids is None:
            return super().generate(input_ids, **options)
        embeds = self.embed(input_ids, options.get("attention_mask"), images)
        new = super().generate(inputs_embeds=embeds, **options)
        if not isinstance(new, torch.Tensor):
            return new
        return torch.cat([input_ids.repeat_interleave(len(new) // len(input_ids), dim=0), new], dim=1)


def _sizes(config: MgmGemmaConfig) -> MgmConfig:
    fields = config.to_dict()
    vision, aux = fields.get("mm_vision_config"), fields.get("mm_vision_aux_config")
    if not vision or not aux:
        raise DataError(
            t("the config does not describe its towers"),
            expected="mm_vision_config, mm_vision_aux_config",
            hint=t("load the checkpoint itself; its weights say the sizes"),
        )
    return MgmConfig(fields, vision, tuple(aux["depths"]), tuple(aux["dims"])).check()


def _dtype(config: MgmGemmaConfig, asked: Any) -> torch.dtype:
    if isinstance(asked, torch.dtype):
        return asked
    stored = config.dtype if asked in (None, "auto") else asked
    found = getattr(torch, str(stored).removeprefix("torch."), None) if stored is not None else torch.float32
    return found if isinstance(found, torch.dtype) else torch.float32
