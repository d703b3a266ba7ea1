"""Pictures, dense labels and small training habits that the vision base models share.

Shape letters: B pictures, P patches (36), C channels, H W pixels (of labels: H heads).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.demo.world.render import render_array
from bettersynth.demo.world.scene import PATCHES, Scene, letter_columns, sample_scene
from bettersynth.demo.world.vocab import BACKGROUNDS, BASE_VOCAB, COLOURS, KINDS, LETTERS, Vocabulary
from bettersynth.media.resize import CLIP_MEAN, CLIP_STD

THINGS = (*KINDS, *BACKGROUNDS, "sign", "plate")
HEADS = {"thing": len(THINGS), "colour": len(COLOURS), "letter": len(LETTERS), "digit": 10, "place": PATCHES * PATCHES}
"""Dense label kinds and their class counts; label -1 means: not defined on this patch."""

READING = ("thing", "colour", "letter", "digit")
"""The heads that speak of what is shown; "place" is the patch's own number."""

CHANNEL_ORDERS = ([0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 0, 0], [1, 1, 1])
"""Exchanges of the colour channels, and grey."""

NUM_PATCHES = PATCHES * PATCHES
HELD_OUT_SEED = 90_001


def dense_labels(scene: Scene) -> np.ndarray:
    """int64 (5, 36): class of every 16 px patch for each of `HEADS`, -1 where a head has nothing to say.

    "thing" is defined everywhere, colours on objects, letters on the upper patch under a letter, digits on plates.
    """
    labels = np.full((len(HEADS), PATCHES, PATCHES), -1, dtype=np.int64)
    labels[0] = THINGS.index(scene.background)
    labels[4] = np.arange(NUM_PATCHES).reshape(PATCHES, PATCHES)
    for thing in scene.things:
        top, left = 2 * thing.cell[0], 2 * thing.cell[1]
        labels[0, top : top + 2, left : left + 2] = THINGS.index(thing.kind)
        labels[1, top : top + 2, left : left + 2] = COLOURS.index(thing.colour)
        if thing.number is not None:
            labels[0, top + 1, left : left + 2] = THINGS.index("plate")
            labels[1, top + 1, left : left + 2] = -1
            labels[3, top + 1, left : left + 2] = [int(digit) for digit in str(thing.number)]
    for sign in scene.signs:
        for letter, col in zip(sign.word, letter_columns(sign), strict=True):
            labels[0, 2 * sign.row : 2 * sign.row + 2, col] = THINGS.index("sign")
            labels[2, 2 * sign.row, col] = LETTERS.index(letter)
    return labels.reshape(len(HEADS), NUM_PATCHES)


def normalise(images_BHWC: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) with CLIP's mean and deviation."""
    x_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).float() / 255
    return (x_BCHW - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def low_resolution(x_BCHW: torch.Tensor, size_px: int = 48) -> torch.Tensor:
    """The low-resolution view as MGM makes it: bilinear, no antialias, on normalised pixels."""
    return F.interpolate(x_BCHW, size=(size_px, size_px), mode="bilinear", align_corners=False)


def clip_view(x_BCHW: torch.Tensor, size_px: int = 48) -> torch.Tensor:
    """The view that CLIP's image processor makes: bicubic with antialias (before or after normalising is the same)."""
    return F.interpolate(x_BCHW, size=(size_px, size_px), mode="bicubic", align_corners=False, antialias=True)


def draw_scenes(rng: random.Random, count: int, vocab: Vocabulary = BASE_VOCAB, min_signs: int = 0) -> list[Scene]:
    """`count` fresh scenes."""
    return [sample_scene(rng, vocab, min_signs=min_signs) for _ in range(count)]


def pictures(scenes: Iterable[Scene]) -> torch.Tensor:
    """Normalised pictures of scenes, float (B, 3, 96, 96)."""
    return normalise(np.stack([render_array(scene) for scene in scenes]))


def dense_batches(
    seed: int, batch_size: int, num_batches: int, recoloured_share: float = 0.25
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Fresh (pictures (B, 3, 96, 96), labels (B, 5, 36)) of base scenes, most with at least one sign.

    A share of the pictures has its colour channels exchanged or is grey, and then carries no colour labels: without
    that, a ViT does not recognise kinds in colours in which the base vocabulary never shows them.
    """
    rng = random.Random(seed)
    for _ in range(num_batches):
        scenes = draw_scenes(rng, batch_size, min_signs=int(rng.random() < 0.75))
        images_BHWC = np.stack([render_array(scene) for scene in scenes])
        labels_BHP = np.stack([dense_labels(scene) for scene in scenes])
        for index in range(batch_size):
            if recoloured_share and rng.random() < recoloured_share:
                images_BHWC[index] = images_BHWC[index][..., rng.choice(CHANNEL_ORDERS)]
                labels_BHP[index, 1] = -1
        yield normalise(images_BHWC), torch.from_numpy(labels_BHP)


class DenseHeads(nn.Module):
    """Linear read-outs of patch features; thrown away after training."""

    def __init__(self, dim: int, names: Iterable[str] = READING) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(dim, HEADS[name]) for name in names})

    def forward(self, x_BPC: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, P, classes) of every head."""
        return {name: head(x_BPC) for name, head in self.heads.items()}


def dense_loss(logits: dict[str, torch.Tensor], labels_BHP: torch.Tensor) -> torch.Tensor:
    """Sum over heads of the mean cross entropy over the patches where the head is defined."""
    total = torch.zeros(())
    for name, value in logits.items():
        target = labels_BHP[:, list(HEADS).index(name)].reshape(-1)
        loss = F.cross_entropy(value.flatten(0, 1), target, ignore_index=-1, reduction="sum")
        total = total + loss / (target >= 0).sum().clamp_min(1)
    return total


@torch.no_grad()
def dense_accuracy(
    predict: Callable[[torch.Tensor], dict[str, torch.Tensor]], vocab: Vocabulary, count: int = 512
) -> dict[str, float]:
    """Scores on held-out pictures of `vocab`.

    Returns:
        Share of right patches for each head; "kind": the same for "thing" on objects only; "word": share of signs
        of which every letter is right.
    """
    rng = random.Random(HELD_OUT_SEED)
    right: dict[str, float] = dict.fromkeys((*HEADS, "kind"), 0.0)
    total: dict[str, float] = dict.fromkeys((*HEADS, "kind"), 0.0)
    words = good_words = 0
    for _ in range(count // 64):
        scenes = draw_scenes(rng, 64, vocab)
        labels_BHP = torch.from_numpy(np.stack([dense_labels(scene) for scene in scenes]))
        logits = predict(pictures(scenes))
        for name, value in logits.items():
            target_BP = labels_BHP[:, list(HEADS).index(name)]
            hits_BP = value.argmax(-1) == target_BP
            right[name] += float(hits_BP[target_BP >= 0].sum())
            total[name] += float((target_BP >= 0).sum())
            if name == "thing":
                on_kind_BP = (target_BP >= 0) & (target_BP < len(KINDS))
                right["kind"] += float(hits_BP[on_kind_BP].sum())
                total["kind"] += float(on_kind_BP.sum())
            if name != "letter":
                continue
            for index, scene in enumerate(scenes):
                for sign in scene.signs:
                    places = [2 * sign.row * PATCHES + col for col in letter_columns(sign)]
                    words += 1
                    good_words += int(hits_BP[index, places].all())
    scores = {name: right[name] / total[name] for name in total if total[name]}
    if words:
        scores["word"] = good_words / words
    return {name: round(value, 3) for name, value in scores.items()}


@torch.no_grad()
def start_values(module: nn.Module, generator: torch.Generator) -> None:
    """Weights of deviation 1/sqrt(fan in), biases zero: library defaults (deviation .02) stall tiny models."""
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2 and "embedding" not in name:
            fan_in = parameter[0].numel()
            parameter.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
        elif parameter.dim() >= 2 and "patch_embedding" in name:
            parameter.normal_(0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
        elif "embedding" in name:
            parameter.normal_(0, 0.1, generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()


def schedule(step: int, num_steps: int, peak: float, warmup_ratio: float = 0.03) -> float:
    """Cosine learning rate with linear warm-up."""
    warmup = max(1, int(warmup_ratio * num_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def optimiser(parameters: Iterable[nn.Parameter], weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW; the learning rate is set each step by `step_optimiser`."""
    return torch.optim.AdamW(list(parameters), lr=0.0, betas=(0.9, 0.98), weight_decay=weight_decay, foreach=True)


def step_optimiser(optim: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
    """One clipped update at learning rate `rate`."""
    for group in optim.param_groups:
        group["lr"] = rate
    optim.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optim.param_groups for p in group["params"]], 1.0)
    optim.step()
