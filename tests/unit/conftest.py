"""A tiny random BAGEL with a tokenizer of words, saved as an official folder."""

from __future__ import annotations

from pathlib import Path

import pytest

_TEXT = (
    "draw a red ball blue cup what is this <image> then the end story with pictures think </think> <think> white one"
)


@pytest.fixture(scope="session")
def bagel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, VaeConfig, VitConfig
    from bettersynth.models.bagel.convert import build_fresh, save_checkpoint

    vocabulary = {word: index for index, word in enumerate(["[UNK]", *dict.fromkeys(_TEXT.split())])}
    first = len(vocabulary)
    config = BagelConfig(
        llm=LlmConfig(first + 4, 16, 24, 2, 4, 2),
        vit=VitConfig(16, 16, 2, 2, image_size=56),
        vae=VaeConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4),
        special=SpecialTokens(first, first + 1, first + 2, first + 3),
        max_latent_size=6,
        vit_max_num_patch_per_side=4,
    )
    model = build_fresh(config, seed=3)
    model.llm2vae.weight.data.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("bagel") / "model"
    save_checkpoint(model, folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SpecialTokens.NAMES))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
