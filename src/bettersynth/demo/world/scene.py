"""Symbolic scenes: what is in a picture of the demo world before anything is drawn.

A picture is 96 x 96 px, a 3 x 3 grid of cells of 32 px. A sign takes a whole grid row (its board is as
wide as its word, 16 px a letter); objects take single cells of the other rows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from bettersynth.demo.world.vocab import BACKGROUNDS, NUMBERED_KINDS, Vocabulary

IMAGE_PX = 96
CELL_PX = 32
PATCH_PX = 16
GRID = IMAGE_PX // CELL_PX
PATCHES = IMAGE_PX // PATCH_PX
OFFSET_STEP_PX = 4
NUM_SIGN_STYLES = 8

# Chances of 0, 1 and 2 signs in a picture.
SIGN_WEIGHTS = (0.2, 0.65, 0.15)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: a kind and a colour in a cell, and the two-digit number on its plate, if any."""

    kind: str
    colour: str
    cell: tuple[int, int]
    number: int | None = None

    @property
    def combo(self) -> tuple[str, str]:
        """(colour, kind)."""
        return (self.colour, self.kind)


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign: a word on grid row `row`, its first letter starting at `x_px`, in a board and font style."""

    word: str
    row: int
    x_px: int
    style: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a picture shows. `seed` drives only the photometric noise and small jitters."""

    background: str
    things: tuple[Thing, ...]
    signs: tuple[Sign, ...]
    seed: int

    def thing_at(self, cell: tuple[int, int]) -> Thing | None:
        """The object in a cell, or None."""
        return next((thing for thing in self.things if thing.cell == cell), None)

    def of_kind(self, kind: str) -> tuple[Thing, ...]:
        """All objects of one kind, in raster order."""
        return tuple(thing for thing in self.things if thing.kind == kind)

    def groups(self) -> tuple[tuple[Thing, ...], ...]:
        """Objects grouped by (colour, kind); an object with a number stands alone. Raster order."""
        found: dict[tuple[str, str, int | None], list[Thing]] = {}
        for thing in self.things:
            found.setdefault((*thing.combo, thing.number), []).append(thing)
        return tuple(tuple(group) for group in found.values())


def sample_scene(rng: random.Random, vocab: Vocabulary, *, min_signs: int = 0, max_signs: int = 2) -> Scene:
    """Draw one scene.

    The number of objects is uniform over 1-4 (1-3 beside two signs); from two objects on, half of the
    scenes repeat one (colour, kind) so that counts of a kind are not nearly always one.

    Args:
        rng: source of all randomness.
        vocab: allowed words and combinations.
        min_signs: least number of signs (0-2).
        max_signs: largest number of signs (0-2).
    """
    signs = _sample_signs(rng, vocab, min_signs, max_signs)
    taken = {sign.row for sign in signs}
    cells = [(row, col) for row in range(GRID) for col in range(GRID) if row not in taken]
    count = rng.randint(1, 4 if len(cells) > GRID else GRID)
    chosen = rng.sample(cells, count)
    combos = _sample_combos(rng, vocab, count)
    things = []
    for (colour, kind), cell in zip(combos, chosen, strict=True):
        is_single = combos.count((colour, kind)) == 1
        number = rng.randint(10, 99) if is_single and kind in NUMBERED_KINDS and rng.random() < 0.7 else None
        things.append(Thing(kind, colour, cell, number))
    things.sort(key=lambda thing: thing.cell)
    return Scene(rng.choice(BACKGROUNDS), tuple(things), signs, rng.getrandbits(32))


def _sample_signs(rng: random.Random, vocab: Vocabulary, low: int, high: int) -> tuple[Sign, ...]:
    allowed = list(range(low, high + 1))
    count = rng.choices(allowed, [SIGN_WEIGHTS[n] for n in allowed])[0]
    rows = sorted(rng.sample(range(GRID), count))
    signs: list[Sign] = []
    for row in rows:
        word = vocab.draw_word(rng)
        while any(word == other.word for other in signs):
            word = vocab.draw_word(rng)
        room = IMAGE_PX - PATCH_PX * len(word)
        x_px = OFFSET_STEP_PX * rng.randint(0, room // OFFSET_STEP_PX)
        signs.append(Sign(word, row, x_px, rng.randrange(NUM_SIGN_STYLES)))
    return tuple(signs)


def _sample_combos(rng: random.Random, vocab: Vocabulary, count: int) -> list[tuple[str, str]]:
    repeats = rng.randint(2, count) if count >= 2 and rng.random() < 0.5 else 1
    # Draw the kind first: kinds may differ in the number of colours a vocabulary allows.
    kinds = sorted({kind for _, kind in vocab.combos})

    def draw() -> tuple[str, str]:
        kind = rng.choice(kinds)
        return (rng.choice(vocab.colours_of(kind)), kind)

    combos = [draw()] * repeats
    combos += [draw() for _ in range(count - repeats)]
    rng.shuffle(combos)
    return combos


def letter_columns(sign: Sign) -> tuple[int, ...]:
    """The 16 px patch column (0-5) on which the middle of each letter falls; all different."""
    return tuple((sign.x_px + PATCH_PX * i + PATCH_PX // 2) // PATCH_PX for i in range(len(sign.word)))


def patch_words(scene: Scene) -> list[tuple[str, ...]]:
    """All words that are true of each 16 px patch, in raster order.

    Returns:
        36 tuples: (colour, kind) on an object, (digit,) on its plate, (letter,) on the upper and
        ("sign",) on the lower patch under a letter of a sign, (background,) elsewhere.
    """
    grid: list[list[tuple[str, ...]]] = [[(scene.background,)] * PATCHES for _ in range(PATCHES)]
    for thing in scene.things:
        top, left = 2 * thing.cell[0], 2 * thing.cell[1]
        for row in (top, top + 1):
            for col in (left, left + 1):
                grid[row][col] = (thing.colour, thing.kind)
        if thing.number is not None:
            for offset, digit in enumerate(str(thing.number)):
                grid[top + 1][left + offset] = (digit,)
    for sign in scene.signs:
        for letter, col in zip(sign.word, letter_columns(sign), strict=True):
            grid[2 * sign.row][col] = (letter,)
            grid[2 * sign.row + 1][col] = ("sign",)
    return [words for row in grid for words in row]


def textual_scene(scene: Scene, rng: random.Random | None = None) -> list[str]:
    """36 words, one for each 16 px patch: the stand-in for the image tokens of a picture.

    Without `rng` an object's patches read colour, kind / colour, kind (or digit, digit below).
    With `rng` each of its patches shows either word at random, but each word at least once, so that a
    reader learns not to depend on their places.
    """
    words = [choices[-1] if index % 2 else choices[0] for index, choices in enumerate(patch_words(scene))]
    if rng is None:
        return words
    for thing in scene.things:
        top, left = 2 * thing.cell[0], 2 * thing.cell[1]
        rows = (top,) if thing.number is not None else (top, top + 1)
        places = [row * PATCHES + col for row in rows for col in (left, left + 1)]
        picks = [thing.colour, thing.kind]
        picks += [rng.choice((thing.colour, thing.kind)) for _ in places[2:]]
        rng.shuffle(picks)
        for place, word in zip(places, picks, strict=True):
            words[place] = word
    return words
