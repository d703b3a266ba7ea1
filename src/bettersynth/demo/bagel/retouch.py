"""Teach the tiny autoencoder's decoder to make pictures of what the language model draws.

    python -m bettersynth.demo.bagel.retouch bagel_pretraining/bagel-tiny --start first-vae --out bagel-vae-tiny

What a language model draws is never quite the latents of a picture: fillings and outlines are off together, not by the
independent noise that the decoder was trained with. Here a picture is turned to noise to about the half, the language
model draws it to its end from there, and the decoder learns to make the picture from the result. Encoder and latents
stay as they are, so the language model needs no more training.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from bettersynth.core.seed import derive_seed, generator
from bettersynth.demo.bagel.autoencoder import Pool, evaluate, load_autoencoder, train_decoder
from bettersynth.demo.bagel.data import draw_scene, mosaic, prompted_scene
from bettersynth.demo.bagel.scores import DRAWING
from bettersynth.demo.bagel.start import SIDE
from bettersynth.demo.world.language import caption
from bettersynth.demo.world.render import render_array
from bettersynth.demo.world.scene import Scene
from bettersynth.models.bagel.context import Context, read_text
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.models.bagel.draw import Drawing, DrawSettings, draw
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.packing import patchify, unpatchify
from bettersynth.models.bagel.tokens import BagelTokenizer

STEPS, SEED = 2400, 0
_TOGETHER, _GROUPS, _UNTOUCHED = 16, 8, 2
"""Pictures drawn at once from the same time, such groups in a pool, and those left as the encoder gives them."""
_FROM, _TO = 0.3, 0.7
"""Share of noise from which the language model draws: what is where is given, how it looks is not."""
_PEAK_LR = 1e-3
_PROMPTED, _MOSAIC = 0.75, 0.15
"""Shares of plain pictures of short prompts and of mosaics; the others are usual scenes."""


def redrawn(model: BagelModel, tokenizer: BagelTokenizer, seed: int, number: int) -> Pool:
    """Pictures, and their latents drawn to the end by the language model; all from the seed and the number alone."""
    settings, rng = DrawSettings(**DRAWING), generator(seed, "demo-vae-redrawn", number)
    found = [_group(model, tokenizer, settings, rng, is_drawn=n >= _UNTOUCHED) for n in range(_GROUPS)]
    images, latents = (torch.cat(part) for part in zip(*found, strict=True))
    return images, latents


@torch.no_grad()
def _group(
    model: BagelModel, tokenizer: BagelTokenizer, settings: DrawSettings, rng: random.Random, *, is_drawn: bool
) -> Pool:
    described = [_scene(rng) for _ in range(_TOGETHER)]
    arrays = [torch.from_numpy(render_array(scene).copy()) for scene, _ in described]
    images = torch.stack(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
    if not is_drawn:
        return images, model.autoencoder.encode(images)
    times, wanted = settings.times(), rng.uniform(_FROM, _TO)
    skip = min(range(len(times)), key=lambda step: abs(times[step] - wanted))
    noise = torch.Generator().manual_seed(rng.getrandbits(62))
    patch, drawings = model.config.latent_patch_size, []
    for (_, text), latents in zip(described, model.autoencoder.encode(images), strict=True):
        context, tokens = Context(), patchify(latents, patch)
        read_text(model, [context], [tokenizer.encode(text)])
        mixed = (1 - times[skip]) * tokens + times[skip] * torch.randn(tokens.shape, generator=noise)
        drawings.append(Drawing(SIDE, SIDE, mixed, context))
    drawn = draw(model, drawings, settings, skip=skip)
    return images, torch.stack([unpatchify(tokens, SIDE, SIDE, patch) for tokens in drawn])


def _scene(rng: random.Random) -> tuple[Scene, str]:
    """A scene of the base vocabulary and a text that asks for it."""
    kind = rng.random()
    if kind < _PROMPTED:
        return prompted_scene(rng)
    if kind < _PROMPTED + _MOSAIC:
        return mosaic(rng)
    scene = draw_scene(rng)
    return scene, caption(scene, rng)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m bettersynth.demo.bagel.retouch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder of the tiny BAGEL that draws")
    parser.add_argument("--start", type=Path, required=True, help="folder of the autoencoder to start from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new autoencoder")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps in all")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    model = load_checkpoint(arguments.folder, dtype=torch.float32, has_vae=False).eval()
    model.set_autoencoder(load_autoencoder(arguments.start))
    autoencoder = load_autoencoder(arguments.start)
    pool = partial(redrawn, model, BagelTokenizer(arguments.folder), SEED)
    seed = derive_seed(SEED, "demo-vae-retouch")
    found = train_decoder(
        autoencoder, arguments.out, pool, steps=arguments.steps, seed=seed, peak_lr=_PEAK_LR, noise=0.0
    )
    print(json.dumps(found))
    print(json.dumps(evaluate(arguments.out)))


if __name__ == "__main__":
    main()
