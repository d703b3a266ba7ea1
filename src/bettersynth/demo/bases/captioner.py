"""Train the tiny captioner (Hugging Face BLIP): first its eye from dense labels, then its tongue from noisy captions.

python -m bettersynth.demo.bases.vision captioner
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

from bettersynth.demo.bases.vision_data import (
    HEADS,
    HELD_OUT_SEED,
    READING,
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
    scramble,
    vocabulary,
)
from bettersynth.demo.bases.vision_towers import VitReader, model_config, preprocessor_config, train_dense
from bettersynth.demo.world.scene import sample_scene
from bettersynth.demo.world.vocab import EVAL_VOCAB, Vocabulary
from bettersynth.models.weights import save_tensors, write_json

NAME = "blip-captioner-tiny"
IMAGE_PX, PATCH_PX, EYE_DIM, TONGUE_DIM = 96, 16, 160, 128


def blip_config() -> BlipConfig:
    """96 px in patches of 16 px, 4 vision layers of 160, 3 text layers of 128."""
    vision = BlipVisionConfig(
        hidden_size=EYE_DIM,
        intermediate_size=4 * EYE_DIM,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        projection_dim=64,
    )
    text = BlipTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=TONGUE_DIM,
        encoder_hidden_size=EYE_DIM,
        intermediate_size=4 * TONGUE_DIM,
        projection_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=CLS_ID,
        eos_token_id=SEP_ID,
        sep_token_id=SEP_ID,
        pad_token_id=PAD_ID,
    )
    return BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64, image_text_hidden_size=64
    )


def train_captioner(
    folder: Path, *, eye_steps: int = 2500, tongue_steps: int = 9000, batch_size: int = 32, seed: int = 3
) -> None:
    """Train and save the captioner.

    Args:
        folder: where the model goes.
        eye_steps: steps of dense-label training of the vision model.
        tongue_steps: steps of caption training of the text decoder in three rounds, the last two with `scramble`; the
            vision model is frozen then.
        batch_size: pictures a step (two captions each in the second part).
        seed: of weights and data.
    """
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(blip_config())
    start_values(model, torch.Generator().manual_seed(seed))
    train_eye(model, num_steps=eye_steps, batch_size=batch_size, seed=seed)
    save_captioner(model, folder)
    rounds = ((1.5e-3, False), (1e-3, True), (7e-4, True))
    for index, (peak, is_scrambled) in enumerate(rounds):
        train_tongue(
            model,
            folder,
            num_steps=tongue_steps // len(rounds),
            batch_size=batch_size,
            seed=seed + 7 * index,
            peak=peak,
            is_scrambled=is_scrambled,
        )


def train_eye(model: BlipForConditionalGeneration, *, num_steps: int, batch_size: int, seed: int) -> None:
    """Dense labels, then a few hundred steps in which every patch has to know its own place as well.

    Dense labels alone wash the places out (column told right for one patch in three), and a decoder that cannot
    look up "the letter to the right of the last one" does not learn to spell.
    """
    reader = VitReader(model.vision_model, EYE_DIM, READING, IMAGE_PX)
    train_dense(reader, "captioner eye", num_steps=num_steps, batch_size=batch_size, seed=seed, peak=2e-3)
    reader = VitReader(model.vision_model, EYE_DIM, tuple(HEADS), IMAGE_PX)
    train_dense(reader, "places", num_steps=num_steps // 6, batch_size=batch_size, seed=seed + 50, peak=1e-3)
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.copy_(parameter.half())  # as stored: the decoder learns from the eye that is shipped


def train_tongue(
    model: BlipForConditionalGeneration,
    folder: Path,
    *,
    num_steps: int,
    batch_size: int,
    seed: int,
    peak: float,
    is_scrambled: bool = False,
) -> None:
    """Caption training of the decoder on a frozen vision model, one cosine; `is_scrambled`: see `scramble`."""
    tokenizer, rng = make_tokenizer(), random.Random(seed + 100)
    generator = torch.Generator().manual_seed(seed)
    optim = optimiser(model.text_decoder.parameters())
    started = time.process_time()
    for step in range(num_steps):
        x_BCHW, texts = caption_batch(rng, batch_size, captions_each=2)
        with torch.no_grad():
            seen_BPC = model.vision_model(x_BCHW).last_hidden_state.repeat_interleave(2, 0)
        ids_BL, mask_BL = encode(tokenizer, texts)
        input_BL = scramble(ids_BL, generator) if is_scrambled else ids_BL
        loss = caption_loss(model, seen_BPC, ids_BL, mask_BL, input_BL)
        step_optimiser(optim, loss, schedule(step, num_steps, peak))
        if (step + 1) % 500 == 0 or step + 1 == num_steps:
            scores = evaluate_captioner(model, EVAL_VOCAB, 128)
            seconds = time.process_time() - started
            print(f"captioner step {step + 1} loss {loss.item():.3f} {seconds:.0f} s {scores}", file=sys.stderr)
            save_captioner(model, folder)
    print(f"captioner: {time.process_time() - started:.0f} CPU s, {evaluate_captioner(model, EVAL_VOCAB)}")


def caption_loss(
    model: BlipForConditionalGeneration,
    seen_BPC: torch.Tensor,
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor,
    input_BL: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean next-token cross entropy after ``[CLS]`` up to ``[SEP]``; `input_BL`: what is read in place of the ids."""
    labels_BL = ids_BL.masked_fill(mask_BL == 0, -100)
    return model.text_decoder(
        input_ids=ids_BL if input_BL is None else input_BL,
        attention_mask=mask_BL,
        encoder_hidden_states=seen_BPC,
        labels=labels_BL,
    ).loss


@torch.no_grad()
def write_captions(model: BlipForConditionalGeneration, x_BCHW: torch.Tensor) -> list[str]:
    """Greedy captions."""
    model.eval()
    start = torch.tensor([[CLS_ID, SEP_ID]]).repeat(len(x_BCHW), 1)
    ids = model.generate(pixel_values=x_BCHW, input_ids=start, max_new_tokens=48, do_sample=False, num_beams=1)
    model.train()
    return make_tokenizer().decode_batch(ids.tolist(), skip_special_tokens=True)


def evaluate_captioner(model: BlipForConditionalGeneration, vocab: Vocabulary, count: int = 512) -> dict[str, float]:
    """Facts right in greedy captions of held-out pictures of `vocab`.

    Returns:
        "word": sign words spelled exactly; "colour_kind": share of (colour, kind) groups named with the right
        colour (and count word or article); "kind": share of kinds named; "number": plate numbers given;
        "false_word": share of captions with a capital word that is on no sign.
    """
    rng = random.Random(HELD_OUT_SEED + 1)
    right = dict.fromkeys(("word", "colour_kind", "kind", "number", "false_word"), 0)
    total = dict.fromkeys(right, 0)
    for _ in range(count // 64):
        scenes = [sample_scene(rng, vocab) for _ in range(64)]
        for scene, text in zip(scenes, write_captions(model, pictures(scenes)), strict=True):
            words = text.split()
            truth = {sign.word for sign in scene.signs}
            said = {word for word in words if word.isupper()}
            facts: list[tuple[str, bool]] = [("word", word in said) for word in truth]
            facts.append(("false_word", bool(said - truth)))
            for group in scene.groups():
                thing = group[0]
                name = thing.kind if len(group) == 1 else f"{thing.kind}s"
                facts.append(("kind", thing.kind in words or f"{thing.kind}s" in words))
                facts.append(("colour_kind", f"{thing.colour} {name}" in text))
                if thing.number is not None:
                    facts.append(("number", str(thing.number) in words))
            for key, is_right in facts:
                right[key] += is_right
                total[key] += 1
    return {key: round(right[key] / max(1, total[key]), 3) for key in right}


def save_captioner(model: BlipForConditionalGeneration, folder: Path) -> None:
    """Write config, half-precision weights, preprocessor and tokenizer in BLIP's folder layout."""
    write_json(model_config(model), folder / "config.json")
    state = {k: v.half() for k, v in model.state_dict().items() if v.is_floating_point() and not _is_tied(k)}
    save_tensors(state, folder / "model.safetensors")
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    preprocess = preprocessor_config(IMAGE_PX) | {"image_processor_type": "BlipImageProcessor", "size": size}
    for key in ("do_center_crop", "crop_size"):
        preprocess.pop(key)
    write_json(preprocess, folder / "preprocessor_config.json")
    save_tokenizer(folder)


def _is_tied(name: str) -> bool:
    return name.endswith(("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"))
