"""Read a picture of the demo world back into a scene, by rules: objects, colours, counts, positions, numbers, words.

Every cell and every row is explained by the template that leaves the least unexplained; colours are what the fit finds,
so brightness, contrast, noise and (with softer templates) blur do not matter. Nothing here is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image

from bettersynth.demo.world import templates as bank
from bettersynth.demo.world.render import RGB, background, outline_colour
from bettersynth.demo.world.scene import CELL_PX, GRID, IMAGE_PX, PATCH_PX, Thing
from bettersynth.demo.world.sign_fits import MIN_CONTRAST, SignFit, SignScan, fit_signs, scan
from bettersynth.demo.world.templates import Floats
from bettersynth.demo.world.vocab import BACKGROUNDS

BLURS = (0.0, 0.7, 1.2, 1.8)
"""Sharpness levels tried, as standard deviations in pixels; the one that explains a picture best is taken."""

_OBJECT_RESIDUAL = 0.42
"""Most of a cell's variance that may stay unexplained when something stands there."""
_GAINS = (0.8, 1.2)
_MAX_SHIFT = 32.0


@dataclass(frozen=True, slots=True)
class SeenSign:
    """A word on a grid row, and where its first letter begins in pixels."""

    word: str
    row: int
    x_px: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows.

    Attributes:
        things: objects in raster order.
        signs: signs from top to bottom.
        background: name of the place.
        blur: sharpness level that explained it best.
        unexplained: share of the picture's variance that nothing explains; high for pictures of something else.
    """

    things: tuple[Thing, ...]
    signs: tuple[SeenSign, ...]
    background: str
    blur: float
    unexplained: float

    def count(self, kind: str, colour: str | None = None) -> int:
        """How many objects of a kind (and colour) there are."""
        return sum(thing.kind == kind and colour in (None, thing.colour) for thing in self.things)

    @property
    def words(self) -> tuple[str, ...]:
        """Words of all signs."""
        return tuple(sign.word for sign in self.signs)


@dataclass(frozen=True)
class _CellFit:
    """The best explanation of one cell: an object (or None), its colours, and what stays unexplained."""

    name: tuple[str, int, int, int] | None
    colours: Floats
    cost: float
    number: int | None = None


def read(image: Image.Image) -> Reading:
    """The scene that explains a picture best. Pictures of another size are scaled to 96 x 96 px first."""
    image = image.convert("RGB")
    if image.size != (IMAGE_PX, IMAGE_PX):
        image = image.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32) - 128
    grid = _grid(pixels)
    noise = _noise(grid)
    looks = [(level, _cells(grid, level, noise), scan(pixels, level)) for level in BLURS]
    blur, fits, places = min(looks, key=lambda look: _rough_cost(look[1], look[2]))
    cells, signs, cost = _explain(fits, places, noise)
    seen = [SeenSign(sign.word, row, sign.x_px) for row, sign in enumerate(signs) if sign is not None]
    found = {
        (row, col): cells[row][col]
        for row in range(GRID)
        for col in range(GRID)
        if signs[row] is None and cells[row][col].name is not None
    }
    empty = [
        cells[row][col].colours[0]
        for row in range(GRID)
        for col in range(GRID)
        if signs[row] is None and cells[row][col].name is None
    ]
    name, gain, shift = _light([*empty, *(fit.colours[0] for fit in found.values())], list(found.values()))
    things = tuple(
        Thing(fit.name[0], _colour((fit.colours[2] - shift) / gain), cell, fit.number)
        for cell, fit in found.items()
        if fit.name is not None
    )
    total = float(((pixels - pixels.mean((0, 1))) ** 2).sum())
    return Reading(things, tuple(seen), name, blur, cost / max(total, 1.0))


def _grid(pixels: Floats) -> Floats:
    """(96, 96, 3) -> (9, 32, 32, 3) cells in raster order."""
    cells = pixels.reshape(GRID, CELL_PX, GRID, CELL_PX, 3).transpose(0, 2, 1, 3, 4)
    return cells.reshape(GRID * GRID, CELL_PX, CELL_PX, 3)


def _rough_cost(fits: Sequence[_CellFit], places: SignScan) -> float:
    """What stays unexplained at one sharpness, signs only guessed at: enough to choose the sharpness."""
    cells = np.array([fit.cost for fit in fits]).reshape(GRID, GRID).sum(1)
    return float(np.minimum(cells, places.rough.min(1)).sum())


def _explain(
    fits: Sequence[_CellFit], places: SignScan, noise: float
) -> tuple[list[Sequence[_CellFit]], list[SignFit | None], float]:
    """The cells and signs of each row, and how much of the picture stays unexplained."""
    costs = np.array([fit.cost for fit in fits]).reshape(GRID, GRID).sum(1)
    signs = fit_signs(places, noise, costs)
    total = sum(float(cost) if sign is None else sign.cost for sign, cost in zip(signs, costs, strict=True))
    return [fits[row * GRID : (row + 1) * GRID] for row in range(GRID)], signs, total


# --- objects ------------------------------------------------------------------------------------------------------


def _cells(cells: Floats, blur: float, noise: float) -> list[_CellFit]:
    """The best explanation of each of (B, 32, 32, 3) cells."""
    flat = cells.reshape(len(cells), -1, 3)
    plain = flat.mean(1, keepdims=True)
    empty = ((flat - plain) ** 2).sum((1, 2))
    whole = _best(bank.objects(blur), flat)
    upper = _best(bank.plated(blur), cells[:, : bank.PLATE_TOP - 1].reshape(len(cells), -1, 3))
    spared = noise**2 * flat.shape[1] * 3
    found = []
    for index, (number, plate_cost) in enumerate(_plates(cells, blur)):
        best = whole[index]
        if number is not None and upper[index].cost + plate_cost < best.cost:
            best = replace(upper[index], cost=upper[index].cost + plate_cost, number=number)
        if not _is_there(best, float(empty[index]), spared):
            best = _CellFit(None, plain[index], float(empty[index]))
        found.append(best)
    return found


def _best(objects: bank.Bank, pixels: Floats) -> list[_CellFit]:
    """The template of a bank that leaves the least of each of (B, N, 3) unexplained."""
    products = objects.products(pixels)
    costs = objects.unexplained(products, bank.squares(pixels))
    choices = costs.argmin(0)
    colours, least = objects.colours(choices, products), costs.min(0)
    return [_CellFit(objects.names[c], colours[n], float(least[n])) for n, c in enumerate(choices)]


def _noise(cells: Floats) -> float:
    """Standard deviation of the noise in (B, H, W, 3) cells, from second differences. Source: Immerkaer 1996."""
    rows = cells[:, :-2] - 2 * cells[:, 1:-1] + cells[:, 2:]
    both = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return float(np.median(np.abs(both))) / 0.6745 / 6


def _is_there(fit: _CellFit, empty: float, spared: float) -> bool:
    """Whether a template explains enough of what noise does not."""
    place, outline, body = fit.colours
    if fit.cost - spared > _OBJECT_RESIDUAL * (empty - spared):
        return False
    return max(_distance(place, outline), _distance(place, body)) > MIN_CONTRAST


def _distance(one: Floats, other: Floats) -> float:
    return float(np.sqrt(((one - other) ** 2).sum()))


def _plates(cells: Floats, blur: float) -> list[tuple[int | None, float]]:
    """For each cell the number on its lower half and what stays unexplained there; None without a plate's contrast."""
    digits, count = bank.digits(blur), len(cells)
    both = (
        cells[:, bank.DIGIT_ROWS].reshape(count, -1, 2, PATCH_PX, 3)[:, :, :, bank.SLOT_COLS].transpose(0, 2, 1, 3, 4)
    )
    slots = both.reshape(2 * count, -1, 3)
    products = digits.products(slots).reshape(2, len(digits.names), count, 2, 3).transpose(2, 3, 0, 1, 4)
    gram, inverse = (np.broadcast_to(table, (count, *table.shape)) for table in (digits.gram, digits.inverse))
    both = np.ones((count, 2), dtype=bool)
    fit = bank.common_fit(products, bank.squares(slots).reshape(count, 2), both, (gram, inverse))
    found: list[tuple[int | None, float]] = []
    for cell, picks, (paper, ink), cost in zip(cells, fit.picks, fit.colours, fit.cost, strict=True):
        if float(paper.mean() - ink.mean()) < 2 * MIN_CONTRAST:
            found.append((None, 0.0))
            continue
        frame = [cell[bank.PLATE_TOP, :], cell[-1, :], cell[bank.DIGIT_ROWS, 0], cell[bank.DIGIT_ROWS, -1]]
        seam = cell[bank.DIGIT_ROWS, PATCH_PX - 1 : PATCH_PX + 1].reshape(-1, 3)
        rest = _spread(np.concatenate(frame)) + float(((seam - paper) ** 2).sum()) + _spread(cell[bank.PLATE_TOP - 1])
        found.append((int("".join(digits.names[pick] for pick in picks)), float(cost) + rest))
    return found


def _spread(pixels: Floats) -> float:
    """Sum of squares about the mean colour."""
    return float(((pixels - pixels.mean(0)) ** 2).sum()) if len(pixels) else 0.0


# --- colours ------------------------------------------------------------------------------------------------------


@cache
def _place_means() -> dict[str, Floats]:
    """Mean colour of each background, texture included, about 128."""
    return {name: np.mean([background(name, v).mean((0, 1)) for v in range(6)], axis=0) - 128 for name in BACKGROUNDS}


def _light(places: Sequence[Floats], fits: Sequence[_CellFit]) -> tuple[str, float, Floats]:
    """Which background it is, with gain and shift of the light: pixel = gain * colour + shift (both about 128)."""
    if not places:
        return BACKGROUNDS[0], 1.0, np.zeros(3)
    seen = np.median(np.stack(places), axis=0)
    outlines = [fit.colours[1] for fit in fits if fit.name is not None]
    best: tuple[float, str, float, float] | None = None
    for name, mean in _place_means().items():
        wanted, got = [mean], [seen]
        if outlines:
            wanted.append(np.asarray(outline_colour(name), dtype=np.float64) - 128)
            got.append(np.median(np.stack(outlines), axis=0))
        want, have = np.concatenate(wanted), np.concatenate(got)
        gain = float(np.clip(np.cov(want, have, bias=True)[0, 1] / max(want.var(), 1e-6), *_GAINS))
        shift = float(np.clip((have - gain * want).mean(), -_MAX_SHIFT, _MAX_SHIFT))
        error = float(((gain * want + shift - have) ** 2).sum())
        if best is None or error < best[0]:
            best = (error, name, gain, shift)
    assert best is not None
    return best[1], best[2], np.full(3, best[3])


def _colour(colour: Floats) -> str:
    """The name of a colour given about 128."""
    return min(RGB, key=lambda name: float(((np.clip(colour + 128, 0, 255) - np.asarray(RGB[name])) ** 2).sum()))
