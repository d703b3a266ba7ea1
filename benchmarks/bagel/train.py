"""Joint training: the one trainer against a loop in the original's way, on the same records, order and random numbers.

The plain loop opens every picture anew, pads the pictures of a pack to their common maximum and encodes them at every
step, recomputes every layer in the backward pass, keeps its average as a deep copy of the model, and updates tensor by
tensor. Ours is ``run_stage`` as a user calls it, with and without recomputation.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.bagel import plain
from benchmarks.bagel.infer import ROUNDS, best
from benchmarks.bagel.world import write_records, write_start
from bettersynth.config.train import StageConfig, stage_config
from bettersynth.models.bagel.collate import pad_images
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.models.bagel.model import BagelModel, JointLoss
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.bagel.resize import to_pixels
from bettersynth.models.family import Batch, load_family
from bettersynth.train.callbacks import Callback, StepView, read_log
from bettersynth.train.data import prepare
from bettersynth.train.optim import lr_at
from bettersynth.train.sampler import micro_batches
from bettersynth.train.stages import run_stage
from bettersynth.train.trainer import order_spec

Facts = dict[str, Any]
EPOCHS, BATCH, DECAY = 2, 8, 0.99


def training(size: str, folder: Path, records: int) -> Facts:
    """The network alone on one batch, then whole trainings."""
    write_start(folder / "start", size)
    data = write_records(folder, records)
    facts: Facts = {"asked": "1.3 times the tokens per CPU second", "records": records, "epochs": EPOCHS}
    facts["network alone"] = network(_config(folder, data), folder)
    watch = _Clock()
    plain_losses, tokens = plain_training(_config(folder, data), watch)
    plain_s = watch.at[-1] - watch.at[0]
    facts["plain"] = {"tokens_per_cpu_s": round(tokens / plain_s), **watch.by_epoch(tokens / EPOCHS)}
    for name, changes in (("ours", {}), ("ours, recomputing", {"gradient_checkpointing": True})):
        watch, out = _Clock(), folder / name
        artifact = run_stage(_config(folder, data, **changes), out=out, progress=watch)
        cpu_s = artifact.run["training_cpu_s"]
        losses = [line["loss"] for line in read_log(out / "train_log.jsonl")]
        facts[name] = {
            "tokens_per_cpu_s": round(tokens / cpu_s),
            "ratio": round(plain_s / cpu_s, 2),
            **watch.by_epoch(tokens / EPOCHS),
            "largest_loss_difference": max(abs(a - b) for a, b in zip(losses, plain_losses, strict=True)),
        }
        if tokens != artifact.facts["tokens"]:
            raise ValueError(f"{tokens} tokens on one side, {artifact.facts['tokens']} on the other")
    return facts


def _config(folder: Path, data: Path, **changes: Any) -> StageConfig:
    settings = {
        "family": "bagel",
        "stage": 2,
        "data": str(data),
        "init_from": str(folder / "start"),
        "lr": 1e-4,
        "warmup_ratio": 0.1,
        "betas": [0.9, 0.95],
        "eps": 1e-15,
        "per_device_batch_size": BATCH,
        "global_batch": BATCH,
        "epochs": EPOCHS,
        "logging_steps": 1,
        "save_steps": 10**6,
        "device": "cpu",
        "max_length": 2048,
        # No dropout and the mean of the posterior, so that both sides train on the same numbers.
        "unified": {
            "dropout_text": 0.0,
            "dropout_vit": 0.0,
            "dropout_vae": 0.0,
            "sample_posterior": False,
            "ema_decay": DECAY,
            "vae_image_size": [128, 64],
            "vit_image_size": [126, 56],
        },
    }
    return stage_config({**settings, **changes}).with_devices(1)


class _Clock(Callback):
    """CPU seconds at the end of every step."""

    def __init__(self) -> None:
        self.at = [time.process_time()]

    def on_start(self, info: Any) -> None:
        self.at = [time.process_time()]

    def on_step(self, view: StepView | None) -> None:
        self.at.append(time.process_time())

    def by_epoch(self, tokens: float) -> Facts:
        """Tokens per CPU second of the first pass over the data, and of the later ones."""
        steps = (len(self.at) - 1) // EPOCHS
        first, later = self.at[steps] - self.at[0], self.at[-1] - self.at[steps]
        return {
            "first_epoch_tokens_per_cpu_s": round(tokens / first),
            "later_epochs_tokens_per_cpu_s": round(tokens * (EPOCHS - 1) / later),
        }


def network(config: StageConfig, folder: Path) -> Facts:
    """Forward and backward pass of one pack whose latents are given, with the largest difference of loss and gradient.

    Both with and without recomputation, so that neither choice decides the ratio.
    """
    job = _Job(config)
    batch = job.batch(job.passes()[0])
    model = load_checkpoint(folder / "start", dtype=torch.float32).train()

    def side(work: Callable[[BagelModel], JointLoss]) -> Callable[[], list[torch.Tensor]]:
        def run() -> list[torch.Tensor]:
            model.zero_grad(set_to_none=True)
            total = work(model).total()
            total.backward()
            return [total.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

        return run

    facts: Facts = {"tokens": len(batch["packed_position_ids"])}
    for name, recomputes in (("", False), (" recomputing", True)):
        model.decoder.is_checkpointing = recomputes
        sides = {
            "plain": side(lambda m, r=recomputes: plain.losses(m, batch, recomputes=r)),
            "ours": side(lambda m: m.losses(batch)),
        }
        seconds, results = best(sides, ROUNDS)
        pairs = list(zip(results["plain"], results["ours"], strict=True))
        facts |= {
            f"plain{name}_tokens_per_cpu_s": round(facts["tokens"] / seconds["plain"]),
            f"ours{name}_tokens_per_cpu_s": round(facts["tokens"] / seconds["ours"]),
            f"ratio{name}": round(seconds["plain"] / seconds["ours"], 2),
            f"largest{name}_difference": max(float((a - b).abs().max()) for a, b in pairs),
        }
    return facts


class _Job:
    """The records in the order and with the random numbers that our trainer gives them."""

    def __init__(self, config: StageConfig) -> None:
        self.config, family = config, load_family("bagel")
        self.model: BagelModel = load_checkpoint(Path(config.init_from or "."), dtype=torch.float32)
        self.processor: UnifiedProcessor = family.training_processor(self.model, config)  # type: ignore[attr-defined]
        self.data = prepare(config, self.processor)
        self.spec = order_spec(config, self.data)
        self.order = self.data.order(self.spec)

    def passes(self) -> list[list[int]]:
        """One forward pass per step."""
        return [micro_batches(self.order, self.spec, step)[0] for step in range(self.spec.steps)]

    def batch(self, indices: list[int], step: int = 0) -> Batch:
        """One pack: pictures opened and resized now, those to be drawn padded to their maximum and encoded now."""
        vae = self.model.config.vae
        examples: list[Any] = [self.data.examples[index] for index in indices]
        arrays, drawn = [], []
        for example in examples:
            row = []
            for picture in example.images:
                image = _opened(self.config.images / picture.path, picture.size)
                if picture.kind == "vit_image":
                    row.append(np.asarray(image))
                else:
                    drawn.append(to_pixels(image))
                    height, width = (side // vae.downsample for side in picture.size)
                    row.append(np.zeros((2 * vae.z_channels, height, width), dtype=np.float32))
            arrays.append(row)
        batch = self.processor.collate_step(step, indices, examples, arrays)
        if drawn:
            with torch.no_grad():
                batch["padded_latent"] = self.model.autoencoder.encode(pad_images(drawn))
        return batch


def _opened(path: Path, size: tuple[int, int]) -> Image.Image:
    image = Image.open(path).convert("RGB")
    height, width = size
    return image.resize((width, height), Image.Resampling.BICUBIC)


def plain_training(config: StageConfig, watch: _Clock) -> tuple[list[float], int]:
    """The loop; returns the loss of every step and the tokens."""
    job = _Job(config)
    model, average = job.model.train(), copy.deepcopy(job.model)
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [p for _, p in named], lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )
    losses, tokens = [], 0
    watch.on_start(None)
    for step, indices in enumerate(job.passes()):
        batch = job.batch(indices, step)
        total = plain.losses(model, batch).total()
        total.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], config.max_grad_norm, foreach=False)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(config, step, job.spec.steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for held, (_, parameter) in zip(average.parameters(), named, strict=True):
                held.mul_(DECAY).add_(parameter, alpha=1 - DECAY)
        losses.append(float(total.detach()))
        tokens += len(batch["packed_position_ids"])
        watch.on_step(None)
    return losses, tokens


def show(facts: Mapping[str, Any]) -> str:
    """The facts as text."""
    return json.dumps(facts, indent=1)
