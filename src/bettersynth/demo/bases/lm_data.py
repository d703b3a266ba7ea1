"""Training batches for the tiny language model, as integer arrays.

Several independent exchanges about one raster share its prefix: each sees the prefix and itself only, and its
positions continue from the prefix, so that every exchange is computed exactly as if it stood alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bettersynth.demo.bases.lm_raster import MAX_PATCH_WORDS, Patch, raster
from bettersynth.demo.bases.lm_turns import (
    PICTURE_TURNS,
    QUESTION_WEIGHTS,
    Turn,
    Weights,
    with_misread_text,
    with_odd_words,
)
from bettersynth.demo.bases.tokenizer import BOS_ID, NEWLINE_ID, PAD_ID, SPACE
from bettersynth.demo.world.scene import PATCHES, sample_scene
from bettersynth.demo.world.vocab import Vocabulary

NUM_PATCHES = PATCHES * PATCHES
IGNORED = -100
USER_HEADER = "<start_of_turn>user\n"
MODEL_HEADER = "<end_of_turn>\n<start_of_turn>model\n"
TURN_END = "<end_of_turn>\n<eos>"
# Loss weights: the letter decides a whole exchange; what follows the end-of-turn mark is always the same.
_LETTER_WEIGHT = 2.0
_TURN_END_WEIGHTS = (0.5, 0.05, 0.05)


@dataclass(frozen=True)
class Batch:
    """B rasters with K exchanges each: P tokens of shared prefix, then K times N tokens; L = P + K N.

    Attributes:
        ids: (B, L) token ids; `PAD_ID` where a patch or nothing stands.
        positions: (L,) position of every token in its own conversation.
        prefix_length: P.
        num_turns: K.
        labels: (B, L) the token that follows, or `IGNORED`.
        weights: (B, L) loss weight of each label.
        truths: (B, L) at the last token of a question the first token of its answer in words, else `IGNORED`.
        rights: (B, L) at the end of each option's line 1 for the right option and 0 for others, else `IGNORED`.
        patch_ids: (B, 36, W) word ids of each patch; no rows in text-only batches.
        patch_weights: (B, 36, W) their weights.
        noise: (B,) standard deviation of the noise on patches, in units of an embedding's.
        scale: (B,) factor on all patches.
        spans: for each exchange its row, first and last+1 labelled position, and turn.
    """

    ids: np.ndarray
    positions: np.ndarray
    prefix_length: int
    num_turns: int
    labels: np.ndarray
    weights: np.ndarray
    truths: np.ndarray
    rights: np.ndarray
    patch_ids: np.ndarray
    patch_weights: np.ndarray
    noise: np.ndarray
    scale: np.ndarray
    spans: list[tuple[int, int, int, Turn]] = field(default_factory=list)

    @property
    def has_rasters(self) -> bool:
        """Whether the prefix holds patches."""
        return bool(self.patch_weights.size)


@dataclass(frozen=True)
class Mixture:
    """What a batch is made of.

    Attributes:
        turns: relative weight of each kind of exchange (keys of `PICTURE_TURNS`).
        forms: relative weight of each raster form.
        num_scenes: rasters in a batch.
        num_turns: exchanges a raster.
        questions: relative weight of each kind of question.
        odd_share: share of scenes (0-1) in which words stand for colours and kinds that they do not mean.
        is_misread: whether rasters show letters and digits that are wrong.
        has_noise: whether patches are noisy, rescaled and sometimes lost.
    """

    turns: dict[str, float]
    forms: dict[str, float]
    num_scenes: int = 32
    num_turns: int = 4
    questions: Weights = field(default_factory=lambda: QUESTION_WEIGHTS)
    odd_share: float = 0.0
    is_misread: bool = False
    has_noise: bool = True


class Encoder:
    """Text and patches to ids, by a `tokenizers.Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.question_mark_id = int(tokenizer.token_to_id("?"))
        self.prefix = [BOS_ID, *self.encode([USER_HEADER])[0]]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without BOS."""
        return [found.ids for found in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def word_id(self, word: str) -> int:
        """The one id that stands for a raster word: the spaced form for words, the bare one for letters."""
        bare = len(word) == 1
        found = self.tokenizer.token_to_id(word if bare else SPACE + word)
        if found is None:
            raise KeyError(word)
        return int(found)

    def patches(self, rasters: Sequence[Sequence[Patch]]) -> tuple[np.ndarray, np.ndarray]:
        """(B, 36, W) ids and weights."""
        ids = np.full((len(rasters), NUM_PATCHES, MAX_PATCH_WORDS), PAD_ID, dtype=np.int64)
        weights = np.zeros(ids.shape, dtype=np.float32)
        for row, patches in enumerate(rasters):
            for place, patch in enumerate(patches):
                for slot, (word, weight) in enumerate(patch.items()):
                    ids[row, place, slot] = self.word_id(word)
                    weights[row, place, slot] = weight
        return ids, weights


def picture_batch(encoder: Encoder, mixture: Mixture, vocab: Vocabulary, rng: random.Random) -> Batch:
    """Exchanges about fresh scenes of a vocabulary."""
    rasters, rows = [], []
    kinds, weights = list(mixture.turns), list(mixture.turns.values())
    for _ in range(mixture.num_scenes):
        scene = sample_scene(rng, vocab)
        if mixture.odd_share and rng.random() < mixture.odd_share:
            scene = with_odd_words(scene, rng)
        form = rng.choices(list(mixture.forms), list(mixture.forms.values()))[0]
        rasters.append(raster(with_misread_text(scene, rng) if mixture.is_misread else scene, form, rng))
        rows.append(
            [
                PICTURE_TURNS[kind](scene, vocab, rng, mixture.questions)
                for kind in rng.choices(kinds, weights, k=mixture.num_turns)
            ]
        )
    return make_batch(encoder, rasters, rows, rng if mixture.has_noise else None)


def text_batch(encoder: Encoder, mixture: Mixture, rng: random.Random, make: Callable[[random.Random], Turn]) -> Batch:
    """Exchanges without a picture."""
    rows = [[make(rng) for _ in range(mixture.num_turns)] for _ in range(mixture.num_scenes)]
    return make_batch(encoder, [], rows, None)


def make_batch(
    encoder: Encoder, rasters: Sequence[Sequence[Patch]], rows: Sequence[Sequence[Turn]], rng: random.Random | None
) -> Batch:
    """Lay out exchanges behind their rasters; every row must have the same number of them.

    Args:
        encoder: text and patches to ids.
        rasters: one a row, or none at all for text-only exchanges.
        rows: the exchanges of each row.
        rng: source of patch noise; None for none.
    """
    turns = [turn for row in rows for turn in row]
    lead = "\n" if rasters else ""
    prompts = encoder.encode([f"{lead}{turn.prompt}{MODEL_HEADER}" for turn in turns])
    answers = encoder.encode([turn.answer + TURN_END for turn in turns])
    prefix = [*encoder.prefix, *([PAD_ID] * NUM_PATCHES if rasters else [])]
    num_turns, longest = len(rows[0]), max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    shape = (len(rows), len(prefix) + num_turns * longest)
    ids, weights = np.full(shape, PAD_ID), np.zeros(shape, dtype=np.float32)
    labels, truths, rights = (np.full(shape, IGNORED) for _ in range(3))
    truth_ids = _truth_ids(encoder, turns)
    spans = []
    ids[:, : len(prefix)] = prefix
    for index, (turn, prompt, answer) in enumerate(zip(turns, prompts, answers, strict=True)):
        row, start = index // num_turns, len(prefix) + index % num_turns * longest
        first, end = start + len(prompt) - 1, start + len(prompt) + len(answer) - 1
        ids[row, start : end + 1] = [*prompt, *answer]
        labels[row, first:end] = answer
        weights[row, first:end] = _LETTER_WEIGHT if turn.task.startswith(("letter", "find")) else 1.0
        weights[row, end - len(_TURN_END_WEIGHTS) : end] = _TURN_END_WEIGHTS
        _mark_steps(encoder, turn, prompt, truth_ids, truths[row, start:], rights[row, start:])
        spans.append((row, first, end, turn))
    one = np.arange(len(prefix), len(prefix) + longest)
    positions = np.concatenate([np.arange(len(prefix)), *[one] * num_turns])
    patches = encoder.patches(rasters)
    noise = _noise(patches[1], rng)
    return Batch(ids, positions, len(prefix), num_turns, labels, weights, truths, rights, *patches, *noise, spans)


def _truth_ids(encoder: Encoder, turns: Sequence[Turn]) -> dict[str, int]:
    """First token of each answer in words."""
    truths = sorted({turn.truth for turn in turns if turn.truth})
    return {truth: ids[0] for truth, ids in zip(truths, encoder.encode(truths), strict=True)}


def _mark_steps(
    encoder: Encoder, turn: Turn, prompt: list[int], truth_ids: dict[str, int], truths: np.ndarray, rights: np.ndarray
) -> None:
    """Fill in what may be known in the course of a prompt: the answer in words, and which option is right."""
    question_mark = encoder.question_mark_id
    if turn.truth and question_mark in prompt:
        truths[prompt.index(question_mark)] = truth_ids[turn.truth]
    if turn.num_options:
        line_ends = [place for place, token in enumerate(prompt) if token == NEWLINE_ID and place > 0]
        for option in range(turn.num_options):
            rights[line_ends[1 + option]] = int(option == turn.right)


def _noise(patch_weights: np.ndarray, rng: random.Random | None) -> tuple[np.ndarray, np.ndarray]:
    """Noise level and scale of each row; loses some patches in place."""
    rows = len(patch_weights)
    noise, scale = np.zeros(rows, dtype=np.float32), np.ones(rows, dtype=np.float32)
    if rng is None:
        return noise, scale
    for row in range(rows):
        if rng.random() < 0.6:
            noise[row] = rng.uniform(0.0, 0.6)
        if rng.random() < 0.5:
            scale[row] = 2.0 ** rng.uniform(-0.7, 0.7)
        if rng.random() < 0.15:
            for place in range(NUM_PATCHES):
                if rng.random() < 0.04:
                    patch_weights[row, place] = 0.0
    return noise, scale
