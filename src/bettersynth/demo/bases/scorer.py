"""Train the tiny image-text scorer (Hugging Face CLIP) by contrast on noisy captions.

Its eye starts from the low-resolution tower, so it reads little: like real CLIP models it tells whether picture and
caption belong together far better than whether a sign is quoted correctly.

    python -m bettersynth.demo.bases.vision scorer
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

from bettersynth.demo.bases.vision_data import (
    HELD_OUT_SEED,
    clip_view,
    optimiser,
    pictures,
    schedule,
    start_values,
    step_optimiser,
)
from bettersynth.demo.bases.vision_text import (
    CLS_ID,
    MAX_TOKENS,
    PAD_ID,
    SEP_ID,
    caption_batch,
    encode,
    make_tokenizer,
    save_tokenizer,
    vocabulary,
)
from bettersynth.demo.bases.vision_towers import CLIP_PX, clip_vision_config, model_config, preprocessor_config
from bettersynth.demo.world.language import caption
from bettersynth.demo.world.scene import sample_scene
from bettersynth.demo.world.vocab import Vocabulary
from bettersynth.models.weights import load_tensors, save_tensors, write_json

NAME = "clip-scorer-tiny"
PROJECTION_DIM = 96
_TIED_TEMPERATURE = 20.0  # logit scale at the start; CLIP's own 14.3 is slower on small batches


def scorer_config() -> CLIPConfig:
    """The low-resolution tower's vision part and a text encoder of 2 layers, 128 wide."""
    text = CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=128,
        intermediate_size=512,
        projection_dim=PROJECTION_DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=PAD_ID,
        bos_token_id=CLS_ID,
        eos_token_id=SEP_ID,
    )
    vision = clip_vision_config().to_dict() | {"projection_dim": PROJECTION_DIM}
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=PROJECTION_DIM)


def train_scorer(folder: Path, clip_vit: Path, *, num_steps: int = 1200, batch_size: int = 48, seed: int = 4) -> None:
    """Train and save the scorer.

    Args:
        folder: where the model goes.
        clip_vit: the trained low-resolution tower to start from.
        num_steps: contrastive steps.
        batch_size: pairs a step; every other caption of the batch is a negative.
        seed: of weights and data.
    """
    torch.manual_seed(seed)
    model = CLIPModel(scorer_config())
    start_values(model, torch.Generator().manual_seed(seed))
    eye = {k.removeprefix("vision_model."): v.float() for k, v in load_tensors(clip_vit / "model.safetensors").items()}
    model.vision_model.load_state_dict(eye, strict=False)
    with torch.no_grad():
        model.logit_scale.fill_(torch.tensor(_TIED_TEMPERATURE).log())
    tokenizer, rng = make_tokenizer(), random.Random(seed + 100)
    optim = optimiser(model.parameters(), weight_decay=0.05)
    started = time.process_time()
    for step in range(num_steps):
        x_BCHW, texts = caption_batch(rng, batch_size)
        logits_BB = similarities(model, x_BCHW, *encode(tokenizer, texts)) * model.logit_scale.exp().clamp(max=100)
        target_B = torch.arange(batch_size)
        loss = (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2
        step_optimiser(optim, loss, schedule(step, num_steps, 1e-3))
        if (step + 1) % 250 == 0:
            seconds = time.process_time() - started
            print(f"scorer step {step + 1} loss {loss.item():.3f} {seconds:.0f} s", file=sys.stderr)
    save_scorer(model, folder)
    print(f"scorer: {time.process_time() - started:.0f} CPU s")


def similarities(model: CLIPModel, x_BCHW: torch.Tensor, ids_TL: torch.Tensor, mask_TL: torch.Tensor) -> torch.Tensor:
    """Cosine (B, T) of every picture (B, 3, 96, 96) with every text."""
    out = model(input_ids=ids_TL, attention_mask=mask_TL, pixel_values=clip_view(x_BCHW, CLIP_PX))
    return out.image_embeds @ out.text_embeds.T


@torch.no_grad()
def retrieval(model: CLIPModel, vocab: Vocabulary, count: int = 512) -> float:
    """Share of held-out pictures whose own clean caption scores best among 64."""
    rng, tokenizer, hits = random.Random(HELD_OUT_SEED + 2), make_tokenizer(), 0
    for _ in range(count // 64):
        scenes = [sample_scene(rng, vocab) for _ in range(64)]
        texts = [caption(scene, rng) for scene in scenes]
        best_B = similarities(model, pictures(scenes), *encode(tokenizer, texts)).argmax(1)
        hits += int((best_B == torch.arange(64)).sum())
    return round(hits / count, 3)


def save_scorer(model: CLIPModel, folder: Path) -> None:
    """Write config, half-precision weights, preprocessor and tokenizer in CLIP's folder layout."""
    write_json(model_config(model), folder / "config.json")
    state = {k: v.half() for k, v in model.state_dict().items() if v.is_floating_point()}
    save_tensors(state, folder / "model.safetensors")
    write_json(preprocessor_config(CLIP_PX), folder / "preprocessor_config.json")
    save_tokenizer(folder)
