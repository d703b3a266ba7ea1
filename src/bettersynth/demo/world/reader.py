"""Read a picture of the demo world back into a scene, by rules: objects, colours, counts, positions, numbers, words.

Every cell and every row is explained by the template that leaves the least unexplained; colours are what the fit finds,
so brightness, contrast, noise and (with softer templates) blur do not matter. Nothing here is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from bettersynth.demo.world import templates as bank
from bettersynth.demo.world.render import RGB, background, outline_colour
from bettersynth.demo.world.scene import CELL_PX, GRID, IMAGE_PX, PATCH_PX, Thing
from bettersynth.demo.world.templates import Floats
from bettersynth.demo.world.vocab import BACKGROUNDS

BLURS = (0.0, 0.7, 1.2, 1.8)
"""Sharpness levels tried, as standard deviations in pixels; the one that explains a picture best is taken."""

_OBJECT_RESIDUAL = 0.42
"""Most of a cell's variance that may stay unexplained when something stands there."""
_SIGN_RESIDUAL = 0.30
_MIN_CONTRAST = 40.0
"""Least distance in RGB between an object's body and its surroundings or outline, and between board and ink."""
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


@dataclass(frozen=True)
class _SignFit:
    word: str
    x_px: int
    cost: float


def read(image: Image.Image) -> Reading:
    """The scene that explains a picture best. Pictures of another size are scaled to 96 x 96 px first."""
    image = image.convert("RGB")
    if image.size != (IMAGE_PX, IMAGE_PX):
        image = image.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32) - 128
    blur = min(BLURS, key=lambda level: _rough_cost(pixels, level))
    cells, signs, cost = _explain(pixels, blur)
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


def _rough_cost(pixels: Floats, blur: float) -> float:
    """What stays unexplained at one sharpness, signs only guessed at: enough to choose the sharpness."""
    grid = _grid(pixels)
    cells = np.array([fit.cost for fit in _cells(grid, blur, _noise(grid))]).reshape(GRID, GRID).sum(1)
    rows = pixels.reshape(GRID, CELL_PX, IMAGE_PX, 3)
    signs = [_places(row, _rows_of_slots(row, blur))[0][0] for row in rows]
    return float(np.minimum(cells, signs).sum())


def _explain(pixels: Floats, blur: float) -> tuple[list[list[_CellFit]], list[_SignFit | None], float]:
    """The best cells and signs at one sharpness, and how much stays unexplained."""
    grid = _grid(pixels)
    noise = _noise(grid)
    fits = _cells(grid, blur, noise)
    cells = [fits[row * GRID : (row + 1) * GRID] for row in range(GRID)]
    signs: list[_SignFit | None] = []
    total = 0.0
    for row in range(GRID):
        cost = sum(fit.cost for fit in cells[row])
        sign = _sign(pixels[row * CELL_PX : (row + 1) * CELL_PX], blur, noise)
        signs.append(sign if sign is not None and sign.cost < cost else None)
        total += min(cost, sign.cost) if sign is not None else cost
    return cells, signs, total


# --- objects ------------------------------------------------------------------------------------------------------


def _cells(cells: Floats, blur: float, noise: float) -> list[_CellFit]:
    """The best explanation of each of (B, 32, 32, 3) cells."""
    flat = cells.reshape(len(cells), -1, 3)
    plain = flat.mean(1, keepdims=True)
    empty = ((flat - plain) ** 2).sum((1, 2))
    objects, plates = bank.objects(blur), bank.plated(blur)
    costs = objects.residuals(flat)
    upper = cells[:, : bank.PLATE_TOP - 1].reshape(len(cells), -1, 3)
    upper_costs = plates.residuals(upper)
    spared = noise**2 * flat.shape[1] * 3
    found = []
    for index, cell in enumerate(cells):
        choice = int(costs[index].argmin())
        best = _CellFit(objects.names[choice], objects.colours(choice, flat[index]), float(costs[index, choice]))
        number, plate_cost = _plate(cell, blur)
        choice = int(upper_costs[index].argmin())
        if number is not None and upper_costs[index, choice] + plate_cost < best.cost:
            colours = plates.colours(choice, upper[index])
            best = _CellFit(plates.names[choice], colours, float(upper_costs[index, choice]) + plate_cost, number)
        if not _is_there(best, float(empty[index]), spared):
            best = _CellFit(None, plain[index], float(empty[index]))
        found.append(best)
    return found


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
    return max(_distance(place, outline), _distance(place, body)) > _MIN_CONTRAST


def _distance(one: Floats, other: Floats) -> float:
    return float(np.sqrt(((one - other) ** 2).sum()))


def _plate(cell: Floats, blur: float) -> tuple[int | None, float]:
    """The number on the lower half of a cell and what stays unexplained there; None without a plate's contrast."""
    digits = bank.digits(blur)
    slots = [cell[bank.DIGIT_ROWS, left : left + PATCH_PX][:, bank.SLOT_COLS].reshape(-1, 3) for left in (0, PATCH_PX)]
    names, (paper, ink), cost = _Slots.of(digits, slots).shared((0, 1))
    if float(paper.mean() - ink.mean()) < 2 * _MIN_CONTRAST:
        return None, 0.0
    frame = [cell[bank.PLATE_TOP, :], cell[-1, :], cell[bank.DIGIT_ROWS, 0], cell[bank.DIGIT_ROWS, -1]]
    seam = cell[bank.DIGIT_ROWS, PATCH_PX - 1 : PATCH_PX + 1].reshape(-1, 3)
    rest = _spread(np.concatenate(frame)) + float(((seam - paper) ** 2).sum()) + _spread(cell[bank.PLATE_TOP - 1])
    return int("".join(names)), cost + rest


def _spread(pixels: Floats) -> float:
    """Sum of squares about the mean colour."""
    return float(((pixels - pixels.mean(0)) ** 2).sum()) if len(pixels) else 0.0


# --- words --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slots:
    """What fits need to know of the letters that would begin at each place of a row, for one font."""

    glyphs: bank.Bank
    products: Floats
    squares: Floats

    @classmethod
    def of(cls, glyphs: bank.Bank, slots: Sequence[Floats]) -> _Slots:
        """From (N, 3) pixels of each slot."""
        stacked = np.stack(slots)
        return cls(glyphs, glyphs.products(stacked), bank.squares(stacked))

    def free(self) -> Floats:
        """(S, T) what stays unexplained when each slot has two colours of its own."""
        return self.glyphs.unexplained(self.products, self.squares)

    def shared(self, which: Sequence[int]) -> tuple[list[str], Floats, float]:
        """Glyphs of some slots that share their two colours: names, (2, 3) colours, what stays unexplained."""
        products, squares = self.products[list(which)], self.squares[list(which)]
        picks = self.glyphs.unexplained(products, squares).argmin(1)
        colours, cost = np.zeros((2, 3)), np.inf
        for _ in range(2):  # first each slot's own colours choose the glyphs, then the common ones
            chosen = products[np.arange(len(picks)), picks].sum(0)
            colours = np.linalg.lstsq(self.glyphs.gram[picks].sum(0), chosen, rcond=None)[0]
            curved = np.einsum("kc,tkj,jc->t", colours, self.glyphs.gram, colours)
            costs = squares[:, None] - 2 * np.einsum("kc,btkc->bt", colours, products) + curved
            picks, cost = costs.argmin(1), float(costs.min(1).sum())
        return [self.glyphs.names[pick] for pick in picks], colours, max(cost, 0.0)


_STARTS = range(0, IMAGE_PX - PATCH_PX + 1, 4)
_PLACES_TRIED = 12


def _rows_of_slots(strip: Floats, blur: float) -> list[_Slots]:
    """One for each font."""
    inner = strip[bank.LETTER_ROWS]
    slots = [inner[:, x : x + PATCH_PX][:, bank.SLOT_COLS].reshape(-1, 3) for x in _STARTS]
    return [_Slots.of(bank.letters(font, blur), slots) for font in range(len(bank.FONTS))]


def _places(strip: Floats, fonts: Sequence[_Slots]) -> list[tuple[float, int, int]]:
    """Where a sign may be on a (32, 96, 3) row, likeliest first: rough cost, start in px, letters."""
    inner = strip[bank.LETTER_ROWS]
    free = np.stack([slots.free().min(1) for slots in fonts])
    edges = _frame_contrast(strip)
    ranked = []
    for length in range(3, 7):
        for x in range(0, IMAGE_PX - PATCH_PX * length + 1, 4):
            cost = float(free[:, _which(x, length)].sum(1).min())
            right = x + PATCH_PX * length - 1
            outside = np.concatenate([inner[:, :x].reshape(-1, 3), inner[:, right + 1 :].reshape(-1, 3)])
            ranked.append((cost + _spread(outside) - float(edges[x] + edges[right]), x, length))
    return sorted(ranked)


def _which(x: int, length: int) -> list[int]:
    return [(x + PATCH_PX * i) // 4 for i in range(length)]


def _sign(strip: Floats, blur: float, noise: float) -> _SignFit | None:
    """The best sign on a (32, 96, 3) row, or None if nothing there looks like one."""
    fonts = _rows_of_slots(strip, blur)
    best: _SignFit | None = None
    for _, x, length in _places(strip, fonts)[:_PLACES_TRIED]:
        around = _around_letters(strip, x, length)
        for slots in fonts:
            fit = _sign_at(strip, slots, (x, length), around, noise)
            if fit is not None and (best is None or fit.cost < best.cost):
                best = fit
    return best


def _frame_contrast(strip: Floats) -> Floats:
    """(96,) how much each column differs from its neighbours, as a hint where a frame may stand."""
    inner = strip[bank.LETTER_ROWS]
    columns = inner.mean(0)
    jumps = np.abs(np.diff(columns, axis=0, prepend=columns[:1])).sum(1)
    return np.asarray(np.maximum(jumps, np.append(jumps[1:], 0.0)) * len(inner))


@dataclass(frozen=True)
class _Around:
    """What of a row does not depend on the letters: its seams between slots, and sums of squares of frame and rest."""

    seams: Floats
    sides: float
    inside: float
    rest: float


def _around_letters(strip: Floats, x: int, length: int) -> _Around:
    right = x + PATCH_PX * length - 1
    inner = strip[bank.LETTER_ROWS]
    seams = [inner[:, x + PATCH_PX * i - 1 : x + PATCH_PX * i + 1].reshape(-1, 3) for i in range(1, length)]
    outside = np.concatenate([inner[:, :x].reshape(-1, 3), inner[:, right + 1 :].reshape(-1, 3)])
    frame = np.concatenate([strip[2, x : right + 1], strip[29, x : right + 1]])
    rest = _spread(frame) + _spread(outside) + sum(_spread(strip[row]) for row in (0, 1, 30, 31))
    sides = _spread(np.concatenate([inner[:, x], inner[:, right]]))
    return _Around(np.concatenate(seams), sides, _spread(inner[:, x : right + 1].reshape(-1, 3)), rest)


def _sign_at(strip: Floats, slots: _Slots, place: tuple[int, int], around: _Around, noise: float) -> _SignFit | None:
    """A sign at a given place in one font, with two colours for all of its letters."""
    x, length = place
    letters, (board, ink), cost = slots.shared(_which(x, length))
    if _distance(board, ink) < 2 * _MIN_CONTRAST:
        return None
    cost += around.sides + float(((around.seams - board) ** 2).sum())
    spared = noise**2 * strip[bank.LETTER_ROWS].shape[0] * PATCH_PX * length * 3
    if cost - spared > _SIGN_RESIDUAL * max(around.inside - spared, 0.0):
        return None
    return _SignFit("".join(letters), x, cost + around.rest)


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
