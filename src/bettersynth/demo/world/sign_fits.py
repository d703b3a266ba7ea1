"""Find signs on the rows of a picture: where a board may stand, in which font, and which word it shows.

Every place and font is bounded from below by what its letters leave unexplained with colours of their own, so the
exact fit is made for the few that can still win. Sums over any columns come from cumulated sums.

Shape letters: R grid rows, P places, S slots of a place, F fonts, T letters, G (row, place, font) that are fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bettersynth.demo.world import templates as bank
from bettersynth.demo.world.scene import CELL_PX, GRID, IMAGE_PX, PATCH_PX
from bettersynth.demo.world.templates import Floats
from bettersynth.demo.world.vocab import LETTERS

Ints = NDArray[np.integer[Any]]

MIN_CONTRAST = 40.0
"""Least distance in RGB between an object's body and its surroundings or outline; twice that between board and ink."""
_RESIDUAL = 0.30
"""Most of a board's variance that may stay unexplained."""
_STARTS = range(0, IMAGE_PX - PATCH_PX + 1, 4)
_COLUMNS = np.array([range(x + bank.SLOT_COLS.start, x + bank.SLOT_COLS.stop) for x in _STARTS])
_MAX_LETTERS = 6
_PLACES = [(x, n) for n in range(3, _MAX_LETTERS + 1) for x in range(0, IMAGE_PX - PATCH_PX * n + 1, 4)]
"""(start in px, letters) of every sign there can be on a row."""
_X = np.array([x for x, _ in _PLACES])
_END = np.array([x + PATCH_PX * n for x, n in _PLACES])
_SLOTS = np.full((len(_PLACES), _MAX_LETTERS), len(_STARTS))
for _number, (_x, _n) in enumerate(_PLACES):
    _SLOTS[_number, :_n] = [(_x + PATCH_PX * i) // 4 for i in range(_n)]
"""(P, S) numbers of the slots of each place; one past the last where there are fewer."""
_PLACES_TRIED = 12
_HEIGHT = bank.LETTER_ROWS.stop - bank.LETTER_ROWS.start


@dataclass(frozen=True)
class SignFit:
    """A word that explains a row, where it begins, and what stays unexplained."""

    word: str
    x_px: int
    cost: float


@dataclass(frozen=True)
class _Sums:
    """Sums (R, 97, 3) and sums of squares (R, 97) of some pixels of each column, over the columns before each."""

    height: int
    plain: Floats
    squared: Floats

    @classmethod
    def of(cls, pixels: Floats) -> _Sums:
        """Of (R, H, 96, 3)."""
        plain, squared = pixels.sum(1, dtype=np.float64), (pixels.astype(np.float64) ** 2).sum((1, 3))
        start = ((0, 0), (1, 0))
        return cls(pixels.shape[1], np.pad(plain.cumsum(1), (*start, (0, 0))), np.pad(squared.cumsum(1), start))

    def between(self, left: Ints, right: Ints) -> tuple[Ints, Floats, Floats]:
        """Number of pixels, sums and sums of squares of the columns from ``left`` up to ``right``."""
        plain = self.plain[:, right] - self.plain[:, left]
        return self.height * (right - left), plain, self.squared[:, right] - self.squared[:, left]


def _about_mean(count: Ints, plain: Floats, squared: Floats) -> Floats:
    """Sums of squares about the mean colour."""
    return np.asarray(np.maximum(squared - (plain**2).sum(-1) / np.maximum(count, 1), 0.0))


@dataclass(frozen=True)
class SignScan:
    """What is known of the signs of a picture before any is fitted.

    Attributes:
        products, squares: of the slots, (2, F, T, R, S + 1, 3) and (R, S + 1); the last slot is empty.
        free: (F, R, P) what letters with colours of their own leave unexplained.
        rough: (R, P) how a place ranks: ``free`` of the best font, the surroundings, hints of a frame.
        inside, rest, sides: (R, P) sums of squares of the board, of all but the letters, of its first and last column.
    """

    letters: bank.Bank
    sums: _Sums
    products: Floats
    squares: Floats
    free: Floats
    rough: Floats
    inside: Floats
    rest: Floats
    sides: Floats


def scan(pixels: Floats, blur: float) -> SignScan:
    """Look at all places of a (96, 96, 3) picture at one sharpness."""
    rows = pixels.reshape(GRID, CELL_PX, IMAGE_PX, 3)
    inner = rows[:, bank.LETTER_ROWS]
    letters, fonts = bank.letters(blur), len(bank.FONTS)
    slots = inner[:, :, _COLUMNS].transpose(0, 2, 1, 3, 4).reshape(GRID * len(_STARTS), -1, 3)
    products, squares = letters.products(slots), bank.squares(slots)
    best = letters.unexplained(products, squares).reshape(fonts, len(LETTERS), GRID, -1).min(1)
    free = _with_empty(best)[..., _SLOTS].sum(-1)
    sums, frame = _Sums.of(inner), _Sums.of(rows[:, [2, 29]])
    inside = sums.between(_X, _END)
    count, plain, squared = sums.between(np.array([0]), np.array([IMAGE_PX]))
    outside = _about_mean(count - inside[0], plain - inside[1], squared - inside[2])
    first, last = sums.between(_X, _X + 1), sums.between(_END - 1, _END)
    margin = rows[:, [0, 1, 30, 31]]
    margins = ((margin - margin.mean(2, keepdims=True)) ** 2).sum((1, 2, 3))
    edges = _frame_contrast(inner)
    return SignScan(
        letters=letters,
        sums=sums,
        products=_with_empty(products.reshape(2, fonts, len(LETTERS), GRID, -1, 3), -2),
        squares=_with_empty(squares.reshape(GRID, -1)),
        free=free,
        rough=free.min(0) + outside - edges[:, _X] - edges[:, _END - 1],
        inside=_about_mean(*inside),
        rest=_about_mean(*frame.between(_X, _END)) + outside + margins[:, None],
        sides=_about_mean(first[0] + last[0], first[1] + last[1], first[2] + last[2]),
    )


def _with_empty(values: Floats, axis: int = -1) -> Floats:
    """With zeros after the last slot."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, 1)
    return np.pad(values, widths)


def _frame_contrast(inner: Floats) -> Floats:
    """(R, 96) how much each column differs from its neighbours, as a hint where a frame may stand."""
    columns = inner.mean(1)
    jumps = np.abs(np.diff(columns, axis=1, prepend=columns[:, :1])).sum(-1)
    return np.asarray(np.maximum(jumps, np.pad(jumps[:, 1:], ((0, 0), (0, 1)))) * _HEIGHT)


def fit_signs(found: SignScan, noise: float, limits: Floats) -> list[SignFit | None]:
    """The best sign of each row, or None if nothing there looks like one.

    Args:
        found: what was seen.
        noise: standard deviation of the picture's noise, which no sign has to explain.
        limits: (R,) a sign of a row has to leave less than that unexplained.
    """
    spared = noise**2 * _HEIGHT * (_END - _X) * 3
    allowed = spared + _RESIDUAL * np.maximum(found.inside - spared, 0.0)
    known = found.free + found.sides
    can_win = (known <= allowed) & (known + found.rest < limits[:, None])
    tried = np.zeros(found.rough.shape, dtype=bool)
    np.put_along_axis(tried, found.rough.argsort(1, kind="stable")[:, :_PLACES_TRIED], True, 1)
    font, row, place = np.nonzero(can_win & tried)
    if not len(font):
        return [None] * GRID
    fit = _fit(found, font, row, place)
    board, ink = fit.colours[:, 0], fit.colours[:, 1]
    cost = fit.cost + found.sides[row, place] + _seams(found.sums, row, place, board)
    is_sign = (np.sqrt(((board - ink) ** 2).sum(-1)) >= 2 * MIN_CONTRAST) & (cost <= allowed[row, place])
    cost = np.where(is_sign, cost + found.rest[row, place], np.inf)
    signs: list[SignFit | None] = []
    for number in range(GRID):
        of_row = np.where(row == number, cost, np.inf)
        best = int(of_row.argmin())
        if of_row[best] >= limits[number]:
            signs.append(None)
            continue
        x, length = _PLACES[place[best]]
        word = "".join(LETTERS[pick] for pick in fit.picks[best, :length])
        signs.append(SignFit(word, x, float(of_row[best])))
    return signs


def _fit(found: SignScan, font: Ints, row: Ints, place: Ints) -> bank.CommonFit:
    """Letters of G places that share two colours."""
    slots, shape = _SLOTS[place], (len(bank.FONTS), len(LETTERS), 2, 2)
    products = found.products.transpose(1, 3, 4, 0, 2, 5)[font[:, None], row[:, None], slots]
    glyphs = (found.letters.gram.reshape(shape)[font], found.letters.inverse.reshape(shape)[font])
    return bank.common_fit(products, found.squares[row[:, None], slots], slots < len(_STARTS), glyphs)


def _seams(sums: _Sums, row: Ints, place: Ints, board: Floats) -> Floats:
    """(G,) sums of squares about the board's colour (G, 3) of the two columns between neighbouring letters."""
    total = np.zeros(len(place))
    for i in range(1, _MAX_LETTERS):
        middle = _X[place] + PATCH_PX * i
        is_inside = middle < _END[place]
        middle = np.minimum(middle, IMAGE_PX - 1)
        plain = sums.plain[row, middle + 1] - sums.plain[row, middle - 1]
        squared = sums.squared[row, middle + 1] - sums.squared[row, middle - 1]
        about = squared - 2 * (board * plain).sum(-1) + 2 * sums.height * (board**2).sum(-1)
        total += np.where(is_inside, about, 0.0)
    return np.maximum(total, 0.0)
