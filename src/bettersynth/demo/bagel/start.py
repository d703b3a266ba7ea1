"""The folder that the tiny BAGEL's training starts from: sizes, tokenizer, random weights, the trained autoencoder."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import torch

from bettersynth.core.artifact import write_atomic
from bettersynth.core.seed import derive_seed
from bettersynth.demo.bagel.autoencoder import WEIGHTS, load_autoencoder
from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, VitConfig
from bettersynth.models.bagel.convert import build_fresh, save_checkpoint
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.tokens import BagelTokenizer

TOKENIZER = WEIGHTS.parent / "gemma-tiny-it" / "tokenizer.json"
PATCH_PX, SIDE = 16, 6
"""A picture of 96 px is 6 x 6 tokens of 16 px, both seen and drawn."""

_EMBEDDING_DEVIATION = 0.3

LLM = LlmConfig(
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    rope_theta=10000.0,
    max_position_embeddings=512,
)
VIT = VitConfig(
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    image_size=PATCH_PX * SIDE,
    patch_size=PATCH_PX,
)


def write_start(folder: Path, *, seed: int = 0, llm: LlmConfig = LLM, weights: Path = WEIGHTS) -> BagelConfig:
    """Write the folder; the same arguments give the same bytes.

    Args:
        folder: made if absent.
        seed: of the random weights.
        llm: sizes of the decoder; its vocabulary is the tokenizer's.
        weights: folder of the trained autoencoder.

    Raises:
        DataError: the autoencoder's files are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special, size = _write_tokenizer(folder)
    autoencoder = load_autoencoder(weights)
    config = BagelConfig(
        llm=replace(llm, vocab_size=size),
        vit=VIT,
        vae=autoencoder.config,
        special=special,
        latent_patch_size=PATCH_PX // autoencoder.config.downsample,
        max_latent_size=SIDE,
        vit_max_num_patch_per_side=SIDE,
    ).check()
    model = build_fresh(config, seed=seed)
    _initialise(model, seed)
    model.set_autoencoder(autoencoder)
    model.tokenizer_folder = str(folder)
    save_checkpoint(model, folder)
    return config


@torch.no_grad()
def _initialise(model: BagelModel, seed: int) -> None:
    """Matrices of a deviation of 1 / sqrt(fan-in): with the library's 0.02, so small a model hardly begins to learn."""
    noise = torch.Generator().manual_seed(derive_seed(seed, "demo-bagel-start"))
    layers = model.decoder.sizes.num_layers
    for name, parameter in model.language_model.named_parameters():
        if parameter.ndim < 2:
            continue
        deviation = parameter.shape[1] ** -0.5
        if name.endswith("embed_tokens.weight"):
            deviation = _EMBEDDING_DEVIATION
        elif "o_proj" in name or "down_proj" in name:
            deviation /= math.sqrt(2 * layers)
        parameter.normal_(0.0, deviation, generator=noise)
    model.decoder.init_generation()


def _write_tokenizer(folder: Path) -> tuple[SpecialTokens, int]:
    """The demo's tokenizer with the four markers behind its last id, so that other programs find them, too."""
    document = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    size = len(document["model"]["vocab"])
    document["added_tokens"] += [
        {"id": size + number, "content": name, "special": True}
        | dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        for number, name in enumerate(SpecialTokens.NAMES)
    ]
    document["post_processor"] = None
    write_atomic(folder / "tokenizer.json", (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    tokenizer = BagelTokenizer(folder)
    return tokenizer.special, size + len(SpecialTokens.NAMES)
