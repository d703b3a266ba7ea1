"""What both sides work on: models of two sizes with random weights, and records of every kind with pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, VaeConfig, VitConfig, load_config
from bettersynth.models.bagel.context import Context, read_text
from bettersynth.models.bagel.convert import build_fresh, save_checkpoint
from bettersynth.models.bagel.model import BagelModel

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "data" / "bagel_a"
PICTURES_PX = ((128, 128), (128, 96), (96, 112), (80, 128))
"""Sizes (width, height): a pack holds several, as real data does."""
_WORDS = 190
_MID = BagelConfig(
    llm=LlmConfig(4096, 384, 1536, 6, 6, 2),
    vit=VitConfig(192, 768, 5, 4, image_size=126, patch_size=14),
    vae=VaeConfig(ch=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1),
    special=SpecialTokens(4000, 4001, 4002, 4003),
    max_latent_size=8,
    vit_max_num_patch_per_side=9,
)


def config_of(name: str, layers: int | None = None) -> BagelConfig:
    """``tiny``: the golden set's sizes (0.3 M parameters); ``mid``: 31 M, most of them in the decoder's layers."""
    if name == "mid":
        return _MID if layers is None else replace(_MID, llm=replace(_MID.llm, num_hidden_layers=layers))
    golden = load_config(GOLDEN)
    return replace(golden, vit=replace(golden.vit, image_size=126), vit_max_num_patch_per_side=9, extra=())


def build(name: str, layers: int | None = None) -> BagelModel:
    """A model of that size; every weight is random, so that nothing is zero by chance."""
    model = build_fresh(config_of(name, layers), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.llm2vae.parameters():
            parameter.normal_(std=0.02, generator=generator)
        for key, parameter in model.language_model.named_parameters():
            if "_moe_gen" in key and parameter.ndim > 1:
                parameter.normal_(std=0.02, generator=generator)
    return model.eval()


def write_start(folder: Path, name: str) -> BagelModel:
    """The folder that training starts from."""
    folder.mkdir(parents=True, exist_ok=True)
    special = config_of(name).special
    vocab = {f"w{number}": number for number in range(special.bos)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SpecialTokens.NAMES))
    tokenizer.save(str(folder / "tokenizer.json"))
    model = build(name)
    model.tokenizer_folder = str(folder)
    save_checkpoint(model, folder)
    return model


def write_records(folder: Path, count: int) -> Path:
    """Drawing, describing, editing and text-only records in turn, with a JPEG for each picture."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rng, pixels = random.Random(3), np.random.default_rng(3)

    def picture(number: int, part: str) -> str:
        width, height = rng.choice(PICTURES_PX)
        noise = Image.fromarray(pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        name = f"pictures/{number}{part}.jpg"
        noise.resize((4 * width, 4 * height), Image.Resampling.BICUBIC).save(folder / name, quality=90)
        return name

    rows = []
    for number in range(count):
        one, two = picture(number, "a"), picture(number, "b")
        kinds: list[list[dict[str, Any]]] = [
            [_say("user", _text(rng, 16)), _show("assistant", one)],
            [_show("user", one), _say("user", _text(rng, 10)), _say("assistant", _text(rng, 24))],
            [_show("user", one), _say("user", _text(rng, 12)), _show("assistant", two)],
            [_say("user", _text(rng, 20)), _say("assistant", _text(rng, 60))],
        ]
        rows.append({"id": str(number), "conversations": kinds[number % 4]})
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _text(rng: random.Random, words: int) -> str:
    return " ".join(f"w{rng.randrange(_WORDS)}" for _ in range(words))


def _say(role: str, text: str) -> dict[str, str]:
    return {"role": role, "type": "text", "content": text}


def _show(role: str, path: str) -> dict[str, str]:
    return {"role": role, "type": "image", "image_path": path}


def prompts(model: BagelModel, count: int, length: int) -> list[Context]:
    """Contexts that have read a text of ``length`` ids each."""
    contexts = [Context() for _ in range(count)]
    generator = torch.Generator().manual_seed(4)
    ids: Sequence[Sequence[int]] = torch.randint(0, _WORDS, (count, length), generator=generator).tolist()
    read_text(model, contexts, ids)
    return contexts
