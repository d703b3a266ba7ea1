"""How well the tiny language model reads textual scenes: exact greedy answers by task."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import torch

from bettersynth.demo.bases.lm_data import Batch, Encoder, Mixture, picture_batch
from bettersynth.demo.bases.lm_model import hidden_states
from bettersynth.demo.world.vocab import Vocabulary

Scores = dict[str, tuple[int, int]]
"""task -> exact answers, answers asked for."""


def exact_answers(model: Any, batch: Batch, generator: Any = None) -> list[bool]:
    """Whether the greedy answer to each exchange is the expected one, up to its end-of-turn mark.

    If every token is the most likely one after its true predecessors, greedy decoding gives exactly this answer, so
    one pass over the batch decides.
    """
    with torch.no_grad():
        best = model.lm_head(hidden_states(model, batch, generator)[-1]).argmax(-1).numpy()
    return [bool((best[row, a:b] == batch.labels[row, a:b]).all()) for row, a, b, _ in batch.spans]


def evaluate(model: Any, encoder: Encoder, vocab: Vocabulary, form: str, seed: int = 7, num_batches: int = 8) -> Scores:
    """Score fresh scenes of a vocabulary in one raster form, without noise.

    Args:
        model: the language model.
        encoder: its tokenizer.
        vocab: base or evaluation vocabulary.
        form: one of `RASTER_FORMS`.
        seed: of the scenes.
        num_batches: batches of 64 scenes with 5 exchanges each.
    """
    rng = random.Random(f"{seed}/{vocab.name}/{form}")
    kinds = {"short": 4.0, "bare": 0.5, "letter": 5.0, "ocr": 1.0, "yes-no": 0.5, "find-letter": 0.5}
    mixture = Mixture(kinds, {form: 1.0}, num_scenes=64, num_turns=5, has_noise=False)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for _ in range(num_batches):
        batch = picture_batch(encoder, mixture, vocab, rng)
        for is_right, span in zip(exact_answers(model, batch), batch.spans, strict=True):
            task = span[3].task
            for name in {task, task.split("/")[0]}:
                counts[name][0] += is_right
                counts[name][1] += 1
    return {name: (right, asked) for name, (right, asked) in sorted(counts.items())}
