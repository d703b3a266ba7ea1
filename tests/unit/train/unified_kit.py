"""A BAGEL folder of a few thousand parameters and records of every kind, for tests of joint training; also a script."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, VaeConfig, VitConfig
from bettersynth.models.bagel.convert import build_fresh, save_checkpoint

WORDS = ("red", "green", "blue", "what", "is", "it", "draw", "make", "a", "picture", "?", "unk")
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
SIZE = len(WORDS)
CONFIG = BagelConfig(
    llm=LlmConfig(SIZE + 4, 16, 24, 2, 4, 2),
    vit=VitConfig(16, 16, 2, 2, image_size=32, patch_size=8),
    vae=VaeConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4),
    special=SpecialTokens(SIZE, SIZE + 1, SIZE + 2, SIZE + 3),
    max_latent_size=6,
    vit_max_num_patch_per_side=4,
)


def write_model(folder: Path) -> Path:
    """The start folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="unk"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SpecialTokens.NAMES))
    tokenizer.save(str(folder / "tokenizer.json"))
    model = build_fresh(CONFIG, seed=3)
    model.tokenizer_folder = str(folder)
    save_checkpoint(model, folder)
    return folder


def say(role: str, text: str) -> dict[str, str]:
    return {"role": role, "type": "text", "content": text}


def show(role: str, path: str) -> dict[str, str]:
    return {"role": role, "type": "image", "image_path": path}


def write_pictures(folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, (name, colour) in enumerate(COLOURS.items()):
        side = 16 + 8 * number
        Image.fromarray(np.full((side, 24, 3), colour, dtype=np.uint8)).save(folder / "images" / f"{name}.png")


def records(count: int = 24, seed: int = 5) -> list[dict[str, Any]]:
    """Drawing, describing, editing, interleaved and text-only records in turn."""
    rng = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(count):
        first, second = rng.sample(list(COLOURS), 2)
        picture, other = f"images/{first}.png", f"images/{second}.png"
        question = say("user", "what is it ?")
        kinds: list[dict[str, Any]] = [
            {"text_prompt": f"a {first} picture", "image_path": picture},
            {"conversations": [show("user", picture), question, say("assistant", first)]},
            {"conversations": [show("user", picture), say("user", f"make it {second}"), show("assistant", other)]},
            {"conversations": [say("user", "draw"), show("assistant", picture), say("assistant", f"it is {first}")]},
            {"conversations": [question, say("assistant", "a picture")]},
        ]
        made.append({"id": f"r{number}", **kinds[number % len(kinds)]})
    return made


def write_data(folder: Path, count: int = 24, name: str = "train.jsonl", seed: int = 5) -> Path:
    write_pictures(folder)
    path = folder / name
    path.write_text("".join(json.dumps(item) + "\n" for item in records(count, seed)))
    return path


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Plain settings of a run of 6 steps."""
    unified = {"vae_image_size": [24, 16], "vit_image_size": [32, 16], **changes.pop("unified", {})}
    return {
        "family": "bagel",
        "stage": 2,
        "data": str(folder / "train.jsonl"),
        "init_from": str(folder / "model"),
        "lr": 0.01,
        "warmup_ratio": 0.1,
        "per_device_batch_size": 4,
        "global_batch": 8,
        "epochs": 2,
        "save_steps": 2,
        "seed": 3,
        "device": "cpu",
        "workers": 1,
        "max_length": 200,
        "unified": unified,
        **changes,
    }


def main() -> None:
    """Train with the settings of a JSON file; die by SIGKILL after step ``KILL_AT``."""
    from bettersynth.config.train import stage_config
    from bettersynth.train.callbacks import Callback
    from bettersynth.train.stages import run_stage

    kill_at = int(os.environ.get("KILL_AT", "0"))

    class Killer(Callback):
        def on_step(self, view: Any) -> None:
            if view.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    config = stage_config(json.loads(Path(sys.argv[1]).read_text()))
    artifact = run_stage(config, out=Path(sys.argv[2]), progress=Callback(), callbacks=[Killer()])
    print(artifact.facts["weights_digest"])


if __name__ == "__main__":
    main()
