"""Build, run, save and load the tiny Gemma.

It is a plain `GemmaForCausalLM` of transformers with one difference from that library's habit: "gelu" means the
exact (erf) GELU, as in the release the real model was trained with; transformers 5 rewrites the word to
the tanh form when a config is made, so it is set again afterwards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GemmaConfig, GemmaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bettersynth.demo.bases.lm_data import NUM_PATCHES, Batch
from bettersynth.demo.bases.tokenizer import BOS_ID, EOS_ID, PAD_ID

SIZES: dict[str, int] = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
MAX_POSITIONS = 1024
PREFIX_LENGTH = 4
"""BOS, start-of-turn mark, "user", newline: what stands before the image tokens."""


def build(vocab_size: int, seed: int, sizes: dict[str, int] | None = None) -> Any:
    """A `GemmaForCausalLM` with weights drawn at std 1/sqrt(fan in), which tiny models need to start learning."""
    config = GemmaConfig(vocab_size=vocab_size, max_position_embeddings=MAX_POSITIONS, **(sizes or SIZES))
    config.hidden_act = "gelu"
    model = GemmaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                std = weight.shape[1] ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * std)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.mul_((2 * config.num_hidden_layers) ** -0.5)
    return model


def hidden_states(model: Any, batch: Batch, generator: Any = None) -> tuple[Any, ...]:
    """Hidden states of a batch, each (B, L, d), patches in place of the image tokens.

    The first is what enters layer 0, the last the final, normalised one; between are the outputs of the layers.

    Args:
        model: a `GemmaForCausalLM`.
        batch: the exchanges.
        generator: torch generator of the patch noise; None leaves noise out.
    """
    embeds = model.model.embed_tokens(torch.from_numpy(batch.ids))
    if batch.has_rasters:
        patches = model.model.embed_tokens(torch.from_numpy(batch.patch_ids))
        patches = (patches * torch.from_numpy(batch.patch_weights)[..., None]).sum(2)
        if generator is not None:
            noise = torch.randn(patches.shape, generator=generator)
            patches = patches + noise * torch.from_numpy(batch.noise)[:, None, None]
            patches = patches * torch.from_numpy(batch.scale)[:, None, None]
        end = PREFIX_LENGTH + NUM_PATCHES
        embeds = torch.cat([embeds[:, :PREFIX_LENGTH], patches, embeds[:, end:]], dim=1)
    plain, model.config._attn_implementation = model.config._attn_implementation, _register_attention()
    try:
        return model.model(
            inputs_embeds=embeds,
            attention_mask=torch.from_numpy(_exchange_mask(batch)),
            position_ids=torch.from_numpy(batch.positions)[None],
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
    finally:
        model.config._attn_implementation = plain


def _exchange_mask(batch: Batch) -> np.ndarray:
    """(1, 1, N, P + N), 0 or -inf: one exchange sees the whole prefix and its own earlier tokens."""
    prefix = batch.prefix_length
    length = (batch.ids.shape[1] - prefix) // batch.num_turns
    own = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
    return np.concatenate([np.zeros((length, prefix), dtype=np.float32), own], axis=1)[None, None]


def _register_attention() -> str:
    """Register the attention over a prefix and its exchanges; the mask tells their lengths.

    Written out as matrix products: on CPU the backward pass of the fused form takes ten times as long at this size.
    """

    def attend(query: Any, key: Any, value: Any, mask: Any) -> Any:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        weights = (scores.float() + mask).softmax(-1)
        return weights.to(value.dtype) @ value

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **_options: Any) -> tuple[Any, None]:
        length, prefix = mask.shape[2], mask.shape[3] - mask.shape[2]
        rows, heads, total, width = query.shape
        turns = (total - prefix) // length
        q, k, v = query, *(part.repeat_interleave(module.num_key_value_groups, 1) for part in (key, value))
        causal = torch.full((prefix, prefix), float("-inf")).triu(1)
        shared = attend(q[:, :, :prefix], k[:, :, :prefix], v[:, :, :prefix], causal)

        def split(part: Any) -> Any:
            """(B, H, L, D) to (B K, H, N, D)."""
            own = part[:, :, prefix:].reshape(rows, heads, turns, length, width)
            return own.transpose(1, 2).reshape(rows * turns, heads, length, width)

        def behind_prefix(part: Any) -> Any:
            """(B, H, L, D) to (B K, H, P + N, D)."""
            return torch.cat([part[:, :, :prefix].repeat_interleave(turns, 0), split(part)], dim=2)

        own = attend(split(q), behind_prefix(k), behind_prefix(v), mask)
        own = own.reshape(rows, turns, heads, length, width).permute(0, 1, 3, 2, 4)
        own = own.reshape(rows, turns * length, heads, width)
        return torch.cat([shared.transpose(1, 2), own], dim=1), None

    ALL_ATTENTION_FUNCTIONS.register("exchanges", attention)
    return "exchanges"


def save(model: Any, folder: Path) -> None:
    """Write config, generation config, and weights as fp16 safetensors with an index, as the official folders have."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    shard = "model-00001-of-00001.safetensors"
    save_file(tensors, folder / shard, metadata={"format": "pt"})
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(sorted(tensors), shard)}
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    version = {"transformers_version": "4.38.2"}
    config = {
        "architectures": ["GemmaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **ids,
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        "max_position_embeddings": MAX_POSITIONS,
        "model_type": "gemma",
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": model.config.vocab_size,
        **{name: getattr(model.config, name) for name in SIZES},
        **version,
    }
    files = {
        "model.safetensors.index.json": index,
        "config.json": dict(sorted(config.items())),
        "generation_config.json": {"_from_model_config": True, **ids, **version},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Any:
    """Read a saved folder in float32, with the exact GELU."""
    config = GemmaConfig.from_pretrained(folder)
    config.hidden_act = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_act"]
    return GemmaForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
