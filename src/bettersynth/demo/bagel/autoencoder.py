"""The tiny autoencoder of the demo world: pictures of 96 px to 64 numbers for each 16 px square, and back.

    python -m bettersynth.demo.bagel.autoencoder --steps 2400            # continues where it was stopped
    python -m bettersynth.demo.bagel.autoencoder --evaluate              # errors on held-out pictures, as JSON

The encoder is computed in closed form (:mod:`bettersynth.demo.bagel.encoder`); only the decoder is trained, by the
absolute error, on latents with a little noise: what a language model draws is never quite right.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.seed import generator
from bettersynth.demo.bagel.encoder import SIZES, fit, write_encoder
from bettersynth.demo.world.render import render_array
from bettersynth.demo.world.scene import sample_scene
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB, Vocabulary
from bettersynth.models.bagel.autoencoder import AttentionBlock, AutoEncoder, ResidualBlock
from bettersynth.models.bagel.config import VaeConfig
from bettersynth.models.bagel.convert import fill
from bettersynth.models.stream import write_stream

WEIGHTS = Path(__file__).parent.parent / "weights" / "bagel-vae-tiny"
WEIGHTS_FILE, CONFIG_FILE = "ae.safetensors", "vae_config.json"
STATE_FILE = "state.pt"
FIT_PICTURES = 400
CROP, BATCH = 6, 16
"""Side of a training crop in latent positions of 8 px, and crops per step."""
_POOL, _POOL_STEPS = 96, 60
"""Pictures from which the crops of so many steps are cut."""
_NOISE = 0.15
_PEAK_LR, _FLOOR, _WARMUP_STEPS = 2e-3, 0.02, 20
_BETAS = (0.9, 0.98)


def pictures(vocab: Vocabulary, seed: int, start: int = 0) -> Iterator[torch.Tensor]:
    """(3, 96, 96) pictures in [-1, 1], each a function of the seed and its number."""
    number = start
    while True:
        array = render_array(sample_scene(generator(seed, "demo-vae", number), vocab))
        yield torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1
        number += 1


def take(count: int, vocab: Vocabulary, seed: int, start: int = 0) -> torch.Tensor:
    """(count, 3, 96, 96) of :func:`pictures`."""
    return torch.stack([image for _, image in zip(range(count), pictures(vocab, seed, start), strict=False)])


def build(seed: int = 0) -> AutoEncoder:
    """The autoencoder with its final encoder and an untrained decoder; scale and shift are measured."""
    images = take(FIT_PICTURES, BASE_VOCAB, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoEncoder(SIZES)
    write_encoder(model, fit(list(images)))
    with torch.no_grad():
        for part in model.decoder.modules():  # blocks begin as identities, which trains much faster
            if isinstance(part, ResidualBlock):
                nn.init.zeros_(part.conv2.weight)
            if isinstance(part, AttentionBlock):
                nn.init.zeros_(part.get_submodule("proj_out").weight)
        mean, log_variance = model.moments(images[:64])
        deviation = float((mean.var() + log_variance.exp().mean()).sqrt())
    config = replace(SIZES, shift_factor=round(float(mean.mean()), 4), scale_factor=round(1 / deviation, 4))
    model.config = config
    return model


Pool = tuple[torch.Tensor, torch.Tensor]
"""Pictures (P, 3, 96, 96) in [-1, 1], and the latents (P, 16, 12, 12) the decoder is to make them from."""


def train(folder: Path, *, steps: int, seed: int = 0, max_seconds: float = math.inf) -> dict[str, Any]:
    """Train a fresh decoder on what the encoder gives, with noise; see :func:`train_decoder`."""

    def pool(number: int) -> Pool:
        images = take(_POOL, BASE_VOCAB, seed, number * _POOL)
        with torch.no_grad():
            return images, torch.cat([model.encode(part) for part in images.split(8)])

    model = build(seed)
    return train_decoder(model, folder, pool, steps=steps, seed=seed, max_seconds=max_seconds)


def train_decoder(
    model: AutoEncoder,
    folder: Path,
    pool: Callable[[int], Pool],
    *,
    steps: int,
    seed: int,
    peak_lr: float = _PEAK_LR,
    noise: float = _NOISE,
    max_seconds: float = math.inf,
) -> dict[str, Any]:
    """Train the decoder up to step ``steps``, or for so many processor seconds; the next call continues.

    Args:
        model: its encoder stays as it is.
        folder: gets weights and state.
        pool: what the crops of so many steps are cut from, by its number alone.
        steps, seed: see above; the seed chooses crops and noise.
        peak_lr: learning rate, which falls linearly.
        noise: deviation of what is added to the latents.
        max_seconds: of this call.

    Returns:
        Steps done and the mean absolute error (pixels in [-1, 1]) of the last hundred.
    """
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=peak_lr, betas=_BETAS, weight_decay=0.0)
    first, state = 0, folder / STATE_FILE
    if state.is_file():
        held = torch.load(state, weights_only=True)
        model.decoder.load_state_dict(held["decoder"])
        optimizer.load_state_dict(held["optimizer"])
        first = held["step"]
    began, losses, done = time.process_time(), [0.0], first
    number, drawn = -1, None
    for step in range(first, steps):
        if time.process_time() - began > max_seconds:
            break
        if drawn is None or number != step // _POOL_STEPS:
            number = step // _POOL_STEPS
            drawn = pool(number)
        rate = min(1.0, (step + 1) / _WARMUP_STEPS) * (_FLOOR + (1 - _FLOOR) * (1 - step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * rate
        losses.append(_step(model, optimizer, drawn, noise, step, seed))
        done = step + 1
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"decoder": model.decoder.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, state)
    save(model, folder)
    return {"step": done, "loss": round(float(np.mean(losses[-100:])), 5)}


def _step(
    model: AutoEncoder, optimizer: torch.optim.Optimizer, pool: Pool, deviation: float, step: int, seed: int
) -> float:
    images, latents = pool
    rng, side = generator(seed, "demo-vae-crop", step), latents.shape[-1] - CROP + 1
    z, x = [], []
    for _ in range(BATCH):
        which, row, col = rng.randrange(len(images)), rng.randrange(side), rng.randrange(side)
        z.append(latents[which, :, row : row + CROP, col : col + CROP])
        x.append(images[which, :, 8 * row : 8 * (row + CROP), 8 * col : 8 * (col + CROP)])
    given, wanted = torch.stack(z), torch.stack(x)
    noise = torch.randn(given.shape, generator=torch.Generator().manual_seed(rng.getrandbits(62)))
    loss = F.l1_loss(model.decode(given + deviation * noise), wanted)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def save(model: AutoEncoder, folder: Path) -> None:
    """Write the weights in half precision, and the sizes with the measured scale and shift."""
    write_atomic(folder / CONFIG_FILE, (json.dumps(asdict(model.config), indent=1) + "\n").encode())
    write_stream(folder / WEIGHTS_FILE, model.state_dict(), dtype=torch.float16)


def load_autoencoder(folder: Path = WEIGHTS) -> AutoEncoder:
    """The trained autoencoder, float32.

    Raises:
        DataError: its files are missing.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        hint = "python -m bettersynth.demo.bagel.autoencoder"
        raise DataError(t("file not found"), where=str(path), hint=hint)
    fields = json.loads(path.read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = AutoEncoder(VaeConfig(**{**fields, "ch_mult": tuple(fields["ch_mult"])}))
    fill(model, folder / WEIGHTS_FILE, dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def evaluate(folder: Path = WEIGHTS, count: int = 48) -> dict[str, float]:
    """Errors on pictures of the evaluation's vocabulary, in grey levels (0-255), and the latents' deviation."""
    model = load_autoencoder(folder)
    images = take(count, EVAL_VOCAB, 2)
    latents = torch.cat([model.encode(part) for part in images.split(8)])
    again = torch.cat([model.decode(part) for part in latents.split(8)]).clamp(-1, 1)
    error = (again - images) * 127.5
    return {
        "mean_absolute_error": round(float(error.abs().mean()), 3),
        "psnr_db": round(float(20 * torch.log10(255 / error.square().mean().sqrt())), 2),
        "latent_mean": round(float(latents.mean()), 3),
        "latent_deviation": round(float(latents.std()), 3),
    }


def main() -> None:
    """Read the command line and train or evaluate."""
    parser = argparse.ArgumentParser(
        prog="python -m bettersynth.demo.bagel.autoencoder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights")
    parser.add_argument("--steps", type=int, default=2400, help="steps in all")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many processor seconds")
    parser.add_argument("--evaluate", action="store_true", help="only evaluate what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.evaluate:
        print(json.dumps(train(arguments.out, steps=arguments.steps, max_seconds=arguments.seconds)))
    print(json.dumps(evaluate(arguments.out)))


if __name__ == "__main__":
    main()
