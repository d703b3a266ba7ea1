"""Pre-train the tiny BAGEL of the demo with the real trainer, on pictures that are drawn when they are needed.

    python -m bettersynth.demo.bagel.pretrain --out bagel_pretraining

First the vision encoder learns what a picture shows (`sight.py`) and is kept as it is from then on. Then two runs one
after the other: a constant rate after a short warm-up, then a linear way down to zero. Run again, it continues where it
was stopped; more ``--steps`` than before continue the first run. No file is read but the autoencoder's: records,
pictures, latents and seen pixels come from their number alone, and the latents from the closed form of the encoder,
which takes a twentieth of the network's time and gives the same numbers.

In half of the places where a text to be learnt has a colour, the model reads another one while its targets stay. Else
it learns that red is never followed by a kind that the base vocabulary does not show in red, and overrules what it sees
(as in `bases/vision_text.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.demo.bagel.autoencoder import FIT_PICTURES, take
from bettersynth.demo.bagel.data import MIX, draw_record
from bettersynth.demo.bagel.encoder import LOG_VARIANCE, Components, fit, latent_means
from bettersynth.demo.bagel.sight import sight_accuracy, train_sight
from bettersynth.demo.bagel.start import write_start
from bettersynth.demo.world.render import render_array
from bettersynth.demo.world.scene import IMAGE_PX, Scene
from bettersynth.demo.world.vocab import BASE_VOCAB, COLOURS, EVAL_VOCAB, LETTERS
from bettersynth.formats.unified import parse_record
from bettersynth.models.bagel.convert import load_checkpoint, save_checkpoint
from bettersynth.models.bagel.family import FAMILY
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.bagel.records import Picture, RecordEncoder, UnifiedExample
from bettersynth.models.bagel.tokens import BagelTokenizer
from bettersynth.models.bagel.vision import VitEncoder
from bettersynth.models.family import Batch, Pixels
from bettersynth.train import unified_result
from bettersynth.train.callbacks import TerminalProgress, build_callbacks
from bettersynth.train.distributed import open_devices
from bettersynth.train.prepare import build_processor
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.trainer import Trainer
from bettersynth.train.unified_data import Source, UnifiedSet, UnifiedStore

RECORDS, SEED = 100_000, 7
"""Different records, and the seed of them and of everything else."""
MOSAICS, COOLDOWN_MOSAICS = 0.5, 0.35
"""Share of pictures full of objects (`draw_record` in `data.py`): shapes first, then usual scenes."""
COOLDOWN_MIX = {"draw": 0.74, "describe": 0.13, "answer": 0.09, "story": 0.04}
"""Kinds of records on the way down: describing is learnt long before drawing."""
BATCH, COOLDOWN_BATCH = 32, 64
WARMUP_STEPS, COOLDOWN_WARMUP_STEPS = 100, 20
WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
"""Processes (torchrun), and which one this is; their number changes the result by rounding alone."""
_NAME = "pretrain"
_SETTINGS: dict[str, Any] = {"logging_steps": 50, "save_steps": 250, "workers": 0, "pixel_cache_bytes": 2 * 2**30}


SIGHT_STEPS, STEPS, COOLDOWN_STEPS = 3000, 8000, 4400
_SIGHT_FILE = "sight.json"
_UNIFIED: dict[str, Any] = {"text_loss_weight": 0.5, "freeze": ("vit",)}
MISREAD = (("colours", 0.5), ("letters", 0.15))
"""What is misread in texts to be learnt, and how often."""


class WorldRecords(RecordEncoder):
    """Records whose pictures are not files: all are as large as the world's pictures."""

    def _header(self, path: str) -> tuple[int, int]:
        return IMAGE_PX, IMAGE_PX


@dataclass(frozen=True)
class WorldProcessor(UnifiedProcessor):
    """Draws the picture of a record when it is asked for; a picture's path is the record's number.

    Attributes:
        mosaics: share of pictures full of objects.
        mix: shares of the kinds of records.
        misread: token ids that may be taken for one another, with the chance of it.
    """

    mosaics: float = MOSAICS
    mix: Mapping[str, float] = field(default_factory=lambda: MIX)
    misread: tuple[tuple[tuple[int, ...], float], ...] = ()

    @cached_property
    def components(self) -> Components:
        """What the autoencoder's encoder computes."""
        return fit(list(take(FIT_PICTURES, BASE_VOCAB, 1)))

    def _load(self, picture: Picture, key: str) -> Pixels:
        number = int(picture.path.removesuffix("b"))
        array = render_array(self.record(number)[1][picture.path])
        if picture.kind == "vit_image":
            return array if self.vision is None else self.features(array)
        pixels = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1
        mean = latent_means(pixels[None], self.components)[0].numpy()
        return np.concatenate([mean, np.full_like(mean, LOG_VARIANCE)])

    def collate_step(
        self, step: int, numbers: Sequence[int], examples: Sequence[UnifiedExample], pixels: Sequence[Sequence[Pixels]]
    ) -> Batch:
        """As its parent's, with words misread in what is to be learnt; which ones depends on step and sample alone."""
        batch = super().collate_step(step, numbers, examples, pixels)
        ids, places, learnt = (batch[n] for n in ("packed_text_ids", "packed_text_indexes", "ce_loss_indexes"))
        ends = batch["sample_lens"].cumsum(0)
        owners, is_learnt = torch.searchsorted(ends, places, right=True).tolist(), torch.isin(places, learnt).tolist()
        rngs = [random.Random(derive_seed(self.seed, "misread", step, int(number))) for number in numbers]
        groups = {token: (group, chance) for group, chance in self.misread for token in group}
        for place, (token, owner, may) in enumerate(zip(ids.tolist(), owners, is_learnt, strict=True)):
            if may and token in groups:
                group, chance = groups[token]
                if rngs[owner].random() < chance:
                    ids[place] = rngs[owner].choice(group)
        return batch

    def record(self, number: int) -> tuple[str, dict[str, Scene], dict[str, Any]]:
        """Kind, scenes by path, and the record of one number."""
        return draw_record(
            number, (str(number), f"{number}b"), seed=SEED, name=_NAME, mosaics=self.mosaics, mix=self.mix
        )


def world_processor(
    model: BagelModel, config: StageConfig, mosaics: float, mix: Mapping[str, float] = MIX
) -> WorldProcessor:
    """The processor of a stage, but for where its pictures come from."""
    given = build_processor(config, FAMILY, model)
    assert isinstance(given, UnifiedProcessor)
    encoder = WorldRecords(**{item.name: getattr(given.encoder, item.name) for item in fields(RecordEncoder)})
    return WorldProcessor(
        *(encoder, given.autoencoder, given.seed, given.dropout, given.sample_posterior),
        mosaics=mosaics,
        mix=mix,
        misread=misread_tokens(BagelTokenizer(Path(str(model.tokenizer_folder)))),
    )


def misread_tokens(tokenizer: BagelTokenizer) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Ids of colours inside a text, of colours at its start, and of letters, with their chances.

    Raises:
        AssertionError: a colour or a letter is more than one token.
    """
    inside, first = ([tokenizer.encode(f"{before}{c}")[-1] for c in COLOURS] for before in ("a ", ""))
    groups = {"colours": (inside, first), "letters": ([tokenizer.encode(letter)[-1] for letter in LETTERS],)}
    assert all(len(set(group)) == len(group) for found in groups.values() for group in found)
    return tuple((tuple(group), chance) for name, chance in MISREAD for group in groups[name])


def world_set(processor: WorldProcessor, count: int) -> UnifiedSet:
    """The tokenised records with numbers below ``count``."""
    store = UnifiedStore()
    for number in range(count):
        record = {"id": str(number), **processor.record(number)[2]}
        example = processor.encode(parse_record(record))  # type: ignore[arg-type]
        assert isinstance(example, UnifiedExample), example
        store.add_unified(example, number, 0)
    return UnifiedSet(count, 0, store, sources=(Source(Path(_NAME), Path()),))


def settings(start: Path, steps: int, *, is_cooldown: bool) -> StageConfig:
    """The preset with a rate that stays, or falls to zero; the first steps do not depend on ``steps``."""
    preset, batch = load_preset("bagel_demo"), COOLDOWN_BATCH if is_cooldown else BATCH
    warmup = COOLDOWN_WARMUP_STEPS if is_cooldown else WARMUP_STEPS
    changed: dict[str, Any] = {
        **_SETTINGS,
        "data": Path(_NAME),
        "init_from": start,
        "global_batch": batch,
        "per_device_batch_size": batch // WORLD,
        "samples_seen": steps * batch,
        "scheduler": "linear" if is_cooldown else "constant",
        "warmup_ratio": min(1.0, (warmup - 0.5) / steps),
        "seed": SEED + is_cooldown,
        "unified": {**preset.joint["unified"], **_UNIFIED, "ema_decay": 0.98 if is_cooldown else 0.998},
    }
    return stage_settings(preset, 2, changed)


def run(
    start: Path, out: Path, config: StageConfig, *, records: int, mosaics: float, mix: Mapping[str, float] = MIX
) -> Path:
    """One run of the trainer into ``out``; returns the folder of its result."""
    result = out / "result"
    out.mkdir(parents=True, exist_ok=True)
    raw = start / unified_result.RAW_FILE  # of the run before, not its average, which still holds the random start
    model = load_checkpoint(start, dtype=torch.float32, weights=raw if raw.is_file() else None)
    processor = world_processor(model, config, mosaics, mix)
    data = world_set(processor, records)
    with open_devices("cpu") as devices:
        watchers = [*build_callbacks(config, out), TerminalProgress()]
        trainer = Trainer(config.with_devices(WORLD), FAMILY, model, processor, data, out, devices, watchers)
        trainer.run()
        if devices.is_main:
            temporary = out / ".result.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            unified_result.save(trainer, temporary, dtype=torch.float32)
            shutil.rmtree(result, ignore_errors=True)
            temporary.rename(result)
        devices.barrier()
    return result


def open_eyes(start: Path, *, steps: int) -> None:
    """Train the vision encoder of a start folder; how well it then sees is written beside its weights."""
    model = load_checkpoint(start, dtype=torch.float32)
    encoder = model.vit_model["vision_model"]
    assert isinstance(encoder, VitEncoder)
    heads = train_sight(encoder, steps=steps, seed=SEED)
    found: dict[str, Any] = {vocab.name: sight_accuracy(encoder, heads, vocab) for vocab in (BASE_VOCAB, EVAL_VOCAB)}
    found["steps"] = steps
    save_checkpoint(model, start)
    write_atomic(start / _SIGHT_FILE, (json.dumps(found, indent=1) + "\n").encode())


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line and train; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bettersynth.demo.bagel.pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("bagel_pretraining"), help="where to work")
    parser.add_argument("--sight", type=int, default=SIGHT_STEPS, help="steps of the vision encoder alone")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps at the constant rate")
    parser.add_argument("--cooldown", type=int, default=COOLDOWN_STEPS, help="steps on the way down")
    parser.add_argument("--records", type=int, default=RECORDS, help="different records")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    out: Path = arguments.out
    try:
        start = out / f"start-{RANK}"  # the same bytes in every process
        seen = start / _SIGHT_FILE
        if not seen.is_file():
            write_start(start, seed=SEED)
            open_eyes(start, steps=arguments.sight)
        elif (steps := json.loads(seen.read_text(encoding="utf-8"))["steps"]) != arguments.sight:
            message = t("the vision encoder here was trained in another number of steps")
            raise ConfigError(message, where="--sight", got=arguments.sight, expected=str(steps), hint="--out FOLDER")
        first = settings(start, arguments.steps, is_cooldown=False)
        middle = run(start, out / "constant", first, records=arguments.records, mosaics=MOSAICS)
        last = settings(middle, arguments.cooldown, is_cooldown=True)
        records, folder = arguments.records, out / f"cooldown-{arguments.steps}"
        result = run(middle, folder, last, records=records, mosaics=COOLDOWN_MOSAICS, mix=COOLDOWN_MIX)
        if RANK == 0:
            export(result, out / "bagel-tiny")
    except BetterSynthError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


def export(result: Path, folder: Path) -> None:
    """The averaged weights in half precision, without the autoencoder, as the package ships them."""
    model = FAMILY.load_checkpoint(result, dtype=torch.float32)
    model._autoencoder.clear()
    save_checkpoint(model, folder, dtype=torch.float16)


if __name__ == "__main__":
    sys.exit(main())
