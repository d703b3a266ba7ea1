"""Rasters of words: the stand-in for the 36 image tokens when the tiny language model is pre-trained.

Every patch is a weighted mean of word embeddings: one word (the hard raster), or several that are true
of the patch at once, as a vision projector can easily give them (the soft raster).
"""

from __future__ import annotations

import random

from bettersynth.demo.world.scene import (
    PATCH_PX,
    PATCHES,
    Scene,
    Sign,
    letter_columns,
    patch_words,
    textual_scene,
)

Patch = dict[str, float]
"""Words of one 16 px patch with their weights (sum 1)."""

RASTER_FORMS = ("plain", "hard", "soft", "blurred")
MAX_PATCH_WORDS = 5


def raster(scene: Scene, form: str, rng: random.Random) -> list[Patch]:
    """The 36 patches of a scene, row by row.

    Args:
        scene: what to show.
        form: "plain" (one word a patch, at fixed places), "hard" (one word a patch, at random places),
            "soft" (even mixture of all that is true of a patch), "blurred" (uneven mixtures; letters run into
            their neighbours as their pixels do; the background shines through).
        rng: source of randomness.
    """
    if form in ("plain", "hard"):
        return [{word: 1.0} for word in textual_scene(scene, rng if form == "hard" else None)]
    patches = [{word: 1.0 / len(words) for word in words} for words in _true_words(scene)]
    if form == "blurred":
        _tilt(patches, rng)
        for sign in scene.signs:
            _blur_sign(patches, sign, rng)
        if rng.random() < 0.5:
            share = rng.uniform(0.0, 0.3)
            for patch in patches:
                patch.setdefault(scene.background, share * rng.random())
    return [_normalised(patch) for patch in patches]


def _true_words(scene: Scene) -> list[list[str]]:
    """Words of each patch; unlike in `patch_words` a plate's patch also carries its object."""
    words = [list(choices) for choices in patch_words(scene)]
    for thing in scene.things:
        if thing.number is not None:
            place = (2 * thing.cell[0] + 1) * PATCHES + 2 * thing.cell[1]
            for patch in words[place : place + 2]:
                patch += [thing.colour, thing.kind]
    return words


def _tilt(patches: list[Patch], rng: random.Random) -> None:
    """Make the shares of colour and kind uneven: somewhat over the picture, somewhat by patch."""
    tilt = rng.uniform(-0.4, 0.4)
    for patch in patches:
        if len(patch) > 1:
            for index, word in enumerate(patch):
                patch[word] *= 1 + (tilt if index % 2 else -tilt) + rng.uniform(-0.3, 0.3)


def _blur_sign(patches: list[Patch], sign: Sign, rng: random.Random) -> None:
    """Spread letters to the patch beside and below, mix the board in."""
    spread = rng.uniform(0.0, 0.6) if rng.random() < 0.5 else 0.0
    below = rng.uniform(0.2, 1.0) if rng.random() < 0.5 else 0.0
    board = rng.uniform(0.0, 0.3)
    top = 2 * sign.row * PATCHES
    over_px = sign.x_px % PATCH_PX
    for index, (letter, col) in enumerate(zip(sign.word, letter_columns(sign), strict=True)):
        left = (sign.x_px + PATCH_PX * index) // PATCH_PX
        beside, pixels = (left, PATCH_PX - over_px) if col != left else (left + 1, over_px)
        if pixels and spread and beside < PATCHES:
            patch = patches[top + beside]
            patch[letter] = patch.get(letter, 0.0) + spread * pixels / PATCH_PX
        patches[top + col].setdefault("sign", board)
        if below:
            patches[top + PATCHES + col][letter] = below


def _normalised(patch: Patch) -> Patch:
    heaviest = dict(sorted(patch.items(), key=lambda item: -item[1])[:MAX_PATCH_WORDS])
    total = sum(heaviest.values())
    return {word: weight / total for word, weight in heaviest.items() if weight > 0}
