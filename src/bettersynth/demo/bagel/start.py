"""The folder that the tiny BAGEL's training starts from: sizes, tokenizer, random weights, the trained autoencoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from bettersynth.core.artifact import write_atomic
from bettersynth.demo.bagel.autoencoder import WEIGHTS, load_autoencoder
from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, VitConfig
from bettersynth.models.bagel.convert import build_fresh, save_checkpoint
from bettersynth.models.bagel.tokens import BagelTokenizer

TOKENIZER = WEIGHTS.parent / "gemma-tiny-it" / "tokenizer.json"
PATCH_PX, SIDE = 16, 6
"""A picture of 96 px is 6 x 6 tokens of 16 px, both seen and drawn."""

LLM = LlmConfig(
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=6,
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
    model.set_autoencoder(autoencoder)
    model.tokenizer_folder = str(folder)
    save_checkpoint(model, folder)
    return config


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
