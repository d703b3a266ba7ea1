"""The training loop of the tiny language model: AdamW, cosine, one thread, fresh scenes at every step."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bettersynth.demo.bases.lm_data import NUM_PATCHES, Batch, Encoder, Mixture, picture_batch, text_batch
from bettersynth.demo.bases.lm_model import PREFIX_LENGTH, hidden_states
from bettersynth.demo.bases.lm_turns import (
    HARD_QUESTION_WEIGHTS,
    QUESTION_WEIGHTS,
    Weights,
    find_letter_turn,
    plain_chat_turn,
)
from bettersynth.demo.world.vocab import BASE_VOCAB

# Choosing a letter is composed of answering and of finding the letter of a text. Training first learns the
# latter alone, then keeps it up while it learns to read rasters, and only then joins the two. Each step's batch holds
# exchanges of one length class: (class: share of steps) by phase, each phase ending at a share of all steps.
Phases = tuple[tuple[float, dict[str, float]], ...]
_FIRST: Phases = (
    (0.03, {"easy-letter": 1.0}),
    (0.06, {"easy-letter": 0.3, "find-letter": 0.7}),
    (0.30, {"find-letter": 0.12, "bare": 0.62, "short": 0.08, "caption": 0.15, "chat": 0.03}),
    (0.60, {"find-letter": 0.07, "bare": 0.28, "short": 0.13, "caption": 0.12, "letter": 0.37, "chat": 0.03}),
    (1.00, {"find-letter": 0.03, "bare": 0.14, "short": 0.25, "caption": 0.15, "letter": 0.4, "chat": 0.03}),
)
# The second round shows that OCR tokens are worth reading: its rasters spell signs and numbers wrong now and then.
# And a letter has to be found behind a raster as well.
_SECOND: Phases = (
    (
        1.00,
        {
            "shown-letter": 0.06,
            "bare": 0.12,
            "short": 0.2,
            "witness": 0.14,
            "caption": 0.13,
            "letter": 0.32,
            "chat": 0.03,
        },
    ),
)
_TURNS: dict[str, dict[str, float]] = {
    "witness": {"witness": 1.0},
    "shown-letter": {"find-letter": 1.0},
    "bare": {"bare": 1.0},
    "short": {"short": 7.0, "ocr": 2.5, "yes-no": 0.5, "sentence": 0.5},
    "caption": {"caption": 1.0},
    "letter": {"letter": 1.0, "option-text": 0.06},
}
# Bare questions are so short that more of them fit behind a raster.
_BARE_FACTOR = 2
_PROBES_FADE = 0.7
_PROBE_WEIGHT = 0.5


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        steps: optimiser steps of the whole schedule.
        stop: steps after which training ends all the same; None: all.
        seed: of weights, scenes and noise.
        lr: peak learning rate.
        weight_decay: of matrices.
        warmup_steps: linear warm-up.
        num_scenes: rasters a step.
        num_turns: exchanges a raster (twice as many bare questions).
        text_factor: how many times more rows a step has that holds no rasters.
        is_bf16: matrix products in bf16.
        phases: classes of exchanges by share of the steps.
        forms: relative weight of each raster form.
        questions: relative weight of each kind of question.
        odd_share: share of scenes with words that mean nothing there.
    """

    steps: int = 8000
    stop: int | None = None
    seed: int = 0
    lr: float = 1.2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    num_scenes: int = 10
    num_turns: int = 5
    text_factor: int = 1
    is_bf16: bool = True
    phases: Phases = _FIRST
    forms: Weights = field(default_factory=lambda: {"plain": 0.15, "hard": 0.25, "soft": 0.25, "blurred": 0.35})
    questions: Weights = field(default_factory=lambda: QUESTION_WEIGHTS)
    odd_share: float = 0.0

    @property
    def num_steps(self) -> int:
        """Steps that are taken."""
        return self.steps if self.stop is None else min(self.stop, self.steps)


def rounds(steps: int = 4000, seed: int = 0) -> tuple[Plan, Plan]:
    """The two rounds of a training that takes `steps` in its first one.

    The first round ends in the middle of its schedule. Run to the end (8,000 steps of a similar plan) the model read
    textual scenes better, but a projector learnt to speak to it more slowly: the caption loss of stage 1 on true
    captions was .67 after 500 steps, against .52 with the two rounds below.
    """
    second = Plan(
        steps=round(0.15 * steps),
        seed=seed + 1,
        lr=4e-4,
        warmup_steps=30,
        text_factor=2,
        phases=_SECOND,
        forms={"plain": 0.12, "hard": 0.25, "soft": 0.25, "blurred": 0.38},
        questions=HARD_QUESTION_WEIGHTS,
        odd_share=0.5,
    )
    return Plan(steps=2 * steps, stop=steps, seed=seed), second


def train(model: Any, encoder: Encoder, plan: Plan, report: Callable[[int, Any], None] | None = None) -> float:
    """Train in place.

    Args:
        model: a `GemmaForCausalLM`.
        encoder: its tokenizer.
        plan: how.
        report: called with step and model every 1000 steps and at the end.

    Returns:
        CPU seconds spent, without `report`.
    """
    torch.manual_seed(plan.seed)
    probes = {"right": torch.nn.Linear(model.config.hidden_size, 1)}
    probes["place"] = torch.nn.Linear(model.config.hidden_size, NUM_PATCHES)
    optimizer = _optimizer(model, probes, plan)
    rng, generator = random.Random(plan.seed), torch.Generator().manual_seed(plan.seed)
    spent, started, mean = 0.0, time.process_time(), {}
    for step in range(plan.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * _lr_factor(step, plan)
        optimizer.zero_grad(set_to_none=True)
        batch = _batch(encoder, plan, step, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.is_bf16):
            states = hidden_states(model, batch, generator)
            loss = _loss(model, batch, states, mean)
            if (weight := _probe_weight(step, plan)) > 0:
                loss = loss + weight * _probe_loss(model, probes, batch, states, mean)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0:
            losses = " ".join(f"{name} {value:.3f}" for name, value in sorted(mean.items()))
            seconds = spent + time.process_time() - started
            print(f"step {step + 1}/{plan.num_steps} {seconds:.0f}s {losses}", file=sys.stderr, flush=True)
        if report and ((step + 1) % 1000 == 0 or step + 1 == plan.num_steps):
            spent += time.process_time() - started
            report(step + 1, model.eval())
            model.train()
            started = time.process_time()
    return spent + time.process_time() - started


def _lr_factor(step: int, plan: Plan) -> float:
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _probe_weight(step: int, plan: Plan) -> float:
    """1 at first, down to 0 over the last part of training."""
    return min(1.0, max(0.0, (1 - step / plan.steps) / (1 - _PROBES_FADE)))


def _optimizer(model: Any, probes: dict[str, Any], plan: Plan) -> Any:
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    others += [weight for probe in probes.values() for weight in probe.parameters()]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98))


def _batch(encoder: Encoder, plan: Plan, step: int, rng: random.Random) -> Batch:
    """A fresh batch of the class drawn for this step."""
    shares = next(shares for end, shares in plan.phases if step < end * plan.steps)
    name = rng.choices(list(shares), list(shares.values()))[0]
    is_picture = name in _TURNS
    num_turns = plan.num_turns * (_BARE_FACTOR if name == "bare" else 1)
    num_scenes = plan.num_scenes * (1 if is_picture else plan.text_factor)
    mixture = Mixture(
        _TURNS.get(name, {}), plan.forms, num_scenes, num_turns, plan.questions, plan.odd_share, name == "witness"
    )
    if is_picture:
        return picture_batch(encoder, mixture, BASE_VOCAB, rng)
    if name == "chat":
        return text_batch(encoder, mixture, rng, plain_chat_turn)
    is_easy = name == "easy-letter"
    return text_batch(encoder, mixture, rng, lambda rng: find_letter_turn(BASE_VOCAB, rng, is_easy=is_easy))


def _loss(model: Any, batch: Batch, states: tuple[Any, ...], mean: dict[str, float]) -> Any:
    """Weighted mean cross-entropy of all labels; running means by task go into `mean`."""
    labels, weights = torch.from_numpy(batch.labels), torch.from_numpy(batch.weights)
    kept = labels >= 0
    logits = model.lm_head(states[-1][kept]).float()
    losses = cross_entropy(logits, labels[kept], reduction="none")
    placed = torch.zeros_like(weights)
    placed[kept] = losses.detach()
    totals: dict[str, list[float]] = {}
    for row, first, end, turn in batch.spans:
        total = totals.setdefault(turn.task.split("/")[0], [0.0, 0.0])
        total[0] += float(placed[row, first : end - 3].sum())
        total[1] += end - 3 - first
    for name, (total_loss, tokens) in totals.items():
        _note(mean, name, total_loss / tokens)
    return (losses * weights[kept]).sum() / weights.sum()


def _note(mean: dict[str, float], name: str, value: float) -> None:
    mean[name] = 0.95 * mean.get(name, value) + 0.05 * value


def _probe_loss(
    model: Any, probes: dict[str, Any], batch: Batch, states: tuple[Any, ...], mean: dict[str, float]
) -> Any:
    """Losses at half-way points of an answer, read from inner layers by heads that are thrown away afterwards.

    A patch should know its place; where a question ends its answer's first token should be readable with
    the model's own head; and where an option ends, whether it is the right one. Learning the steps of multiple choice
    where they happen takes it off the plateau at chance, on which tiny models stay for very long.
    """

    def read(layer: int, where: Any) -> Any:
        return model.model.norm(states[layer][where])

    layers = model.config.num_hidden_layers
    losses = {}
    truths, rights = torch.from_numpy(batch.truths), torch.from_numpy(batch.rights)
    if bool((asked := truths >= 0).any()):
        losses["probe-truth"] = cross_entropy(model.lm_head(read(layers - 2, asked)).float(), truths[asked])
    if bool((ends := rights >= 0).any()):
        flags = probes["right"](read(layers - 1, ends)).float().squeeze(-1)
        losses["probe-right"] = binary_cross_entropy_with_logits(flags, rights[ends].float())
    if batch.has_rasters:
        patches = (slice(None), slice(PREFIX_LENGTH, PREFIX_LENGTH + NUM_PATCHES))
        places = probes["place"](read(2, patches)).float().flatten(0, 1)
        losses["probe-place"] = cross_entropy(places, torch.arange(NUM_PATCHES).repeat(len(batch.ids)))
    for name, value in losses.items():
        _note(mean, name, value.item())
    return _PROBE_WEIGHT * sum(losses.values(), torch.zeros(()))
