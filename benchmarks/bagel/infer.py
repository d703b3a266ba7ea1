"""Drawing and decoding: the same start, the same numbers out, CPU seconds of both sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from benchmarks.bagel import plain
from benchmarks.bagel.world import build, prompts
from bettersynth.models.bagel.context import Context
from bettersynth.models.bagel.draw import Drawing, DrawSettings, draw, start_noise
from bettersynth.models.bagel.generate import generate_text
from bettersynth.models.bagel.model import BagelModel

Facts = dict[str, Any]
Result = TypeVar("Result")
ROUNDS, ROUNDS_ALONE = 3, 9
"""Of many requests together, and of one alone, which is short."""
PROMPT_TOKENS = 24
SIDE_TOKENS = 8
"""A picture of 8 x 8 latent tokens, 128 px."""


def best(work: Mapping[str, Callable[[], Result]], rounds: int = ROUNDS) -> tuple[dict[str, float], dict[str, Result]]:
    """Each side in turn, several times: its least CPU seconds, and what it returned."""
    seconds: dict[str, float] = {}
    results: dict[str, Result] = {}
    for _ in range(rounds):
        for name, run in work.items():
            before = time.process_time()
            results[name] = run()
            spent = time.process_time() - before
            seconds[name] = min(spent, seconds.get(name, spent))
    return seconds, results


def drawing(size: str, steps: int) -> Facts:
    """Text-to-image with both guidances at every step, one picture and four."""
    model = build(size)
    settings = DrawSettings(num_timesteps=steps + 1, cfg_interval=(0.0, 1.0))
    facts: Facts = {"asked": "2 times the steps per CPU second", "steps": steps, "tokens": SIDE_TOKENS**2}
    for count in (1, 4):
        contexts = prompts(model, count, PROMPT_TOKENS)
        noises = [start_noise(model, SIDE_TOKENS, SIDE_TOKENS, seed) for seed in range(count)]
        pictures = [
            Drawing(SIDE_TOKENS, SIDE_TOKENS, noise, context, Context(), context)
            for noise, context in zip(noises, contexts, strict=True)
        ]

        def one_by_one(contexts: Any = contexts, noises: Any = noises) -> list[torch.Tensor]:
            side = (SIDE_TOKENS, SIDE_TOKENS)
            return [
                plain.draw(model, (c, Context(), c), side, n, settings) for c, n in zip(contexts, noises, strict=True)
            ]

        def ours(pictures: Any = pictures) -> list[torch.Tensor]:
            return draw(model, pictures, settings)

        seconds, latents = best({"plain": one_by_one, "ours": ours}, ROUNDS if count > 1 else ROUNDS_ALONE)
        worst = max(float((a - b).abs().max()) for a, b in zip(latents["plain"], latents["ours"], strict=True))
        facts[f"{count} pictures" if count > 1 else "1 picture"] = {
            **_rates(seconds, count * steps, "steps_per_cpu_s"),
            "largest_latent_difference": worst,
        }
    return facts


def decoding(size: str, new_tokens: int) -> Facts:
    """Greedy texts of a fixed length, one alone and sixteen together."""
    model = build(size)
    facts: Facts = {"asked": "2 times the tokens per CPU second", "new_tokens": new_tokens}
    for count in (1, 16):
        contexts = prompts(model, count, PROMPT_TOKENS)

        def one_by_one(contexts: Any = contexts) -> list[list[int]]:
            return [plain.decode(model, context, new_tokens, end_id=-1) for context in contexts]

        def ours(contexts: Any = contexts) -> list[list[int]]:
            return _ours_decoded(model, contexts, new_tokens)

        seconds, ids = best({"plain": one_by_one, "ours": ours}, ROUNDS if count > 1 else ROUNDS_ALONE)
        facts[f"{count} texts" if count > 1 else "1 text"] = {
            **_rates(seconds, count * new_tokens, "tokens_per_cpu_s"),
            "same_ids": ids["plain"] == ids["ours"],
        }
    return facts


def _ours_decoded(model: BagelModel, contexts: list[Context], new_tokens: int) -> list[list[int]]:
    return [answer.ids for answer in generate_text(model, contexts, max_new_tokens=new_tokens, end_id=-1)]


def _rates(seconds: Mapping[str, float], amount: int, unit: str) -> Facts:
    return {
        **{f"{name}_{unit}": round(amount / spent, 1) for name, spent in seconds.items()},
        "ratio": round(seconds["plain"] / seconds["ours"], 2),
    }
