"""What objects, letters and digits of the demo world look like as weights of few colours, at any sharpness.

A picture's cell is background * w0 + outline * w1 + body * w2 with known weights, so reading it is a linear fit: no
colour, brightness or contrast has to be known. Blur acts on the weights alike, so blurred pictures are read with
blurred weights.

Shape letters: T templates, N pixels, K colours, B pieces of a picture, G places, S slots of a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bettersynth.demo.world.render import SIGN_LOOKS, glyph_mask, shape_masks
from bettersynth.demo.world.scene import CELL_PX
from bettersynth.demo.world.vocab import KINDS, LETTERS, NUMBERED_KINDS

Floats = NDArray[np.floating[Any]]

SIZES = (26, 28)
PLATE_HEIGHT = 22
PLATE_TOP = 15
FONTS = tuple(dict.fromkeys((face, weight, shear) for _, _, face, weight, shear in SIGN_LOOKS))
LETTER_ROWS = slice(3, 29)
"""Rows of a sign's cell inside its frame."""
SLOT_COLS = slice(1, 15)
"""Columns of a letter's 16 px slot that no frame touches."""
DIGIT_ROWS = slice(16, 31)


@dataclass(frozen=True)
class Bank:
    """Templates of one family with what a least-squares fit needs.

    Attributes:
        names: of each template.
        weights: (K, T, N).
        gram: (T, K, K) products of the weights with each other; ``inverse`` their inverses.
    """

    names: tuple[Any, ...]
    weights: Floats
    gram: Floats
    inverse: Floats

    @classmethod
    def build(cls, names: list[Any], weights: list[Floats]) -> Bank:
        """From weights (N, K) of each template."""
        stacked = np.ascontiguousarray(np.stack(weights).astype(np.float32).transpose(2, 0, 1))
        gram = np.einsum("ktn,jtn->tkj", stacked, stacked).astype(np.float64)
        return cls(tuple(names), stacked, gram, np.linalg.pinv(gram, hermitian=True))

    def products(self, pixels: Floats) -> Floats:
        """(B, N, 3) pixels -> (K, T, B, 3) products with the weights: all that a fit needs to know of the pixels."""
        colours, templates, length = self.weights.shape
        side = pixels.astype(np.float32).transpose(1, 0, 2).reshape(length, -1)
        found = self.weights.reshape(-1, length) @ side
        return found.astype(np.float64).reshape(colours, templates, len(pixels), -1)

    def unexplained(self, products: Floats, squares: Floats) -> Floats:
        """(T, B) sums of squares that no choice of colours explains; ``squares`` (B,) are those of the pixels."""
        explained = np.zeros(products.shape[1:3])
        for k in range(len(products)):
            for j in range(k + 1):  # the inverse is symmetric
                factor = (1 if j == k else 2) * self.inverse[:, k, j, None]
                explained += factor * np.einsum("tbo,tbo->tb", products[k], products[j])
        return np.maximum(squares - explained, 0.0)

    def colours(self, choices: NDArray[np.intp], products: Floats) -> Floats:
        """(B, K, 3) colours of the template chosen for each of B that fit best."""
        chosen = products[:, choices, np.arange(len(choices))]
        return np.asarray(self.inverse[choices] @ chosen.transpose(1, 0, 2))


@dataclass(frozen=True)
class CommonFit:
    """Glyphs (G, S) of G places, the two colours (G, 2, 3) that those of a place share, what stays unexplained (G,)."""

    picks: NDArray[np.intp]
    colours: Floats
    cost: Floats


def common_fit(products: Floats, squares: Floats, is_slot: NDArray[np.bool_], bank: tuple[Floats, Floats]) -> CommonFit:
    """The glyphs in S slots that explain them best with the same two colours.

    Args:
        products: (G, S, 2, T, 3) of each slot with each glyph.
        squares: (G, S) of the pixels.
        is_slot: (G, S) false where a place has fewer slots; products and squares are zero there.
        bank: (G, T, 2, 2) products of the glyphs' weights with each other, and their inverses.
    """
    gram, inverse = bank
    own = np.einsum("gskto,gtkj,gsjto->gst", products, inverse, products)
    picks = own.argmax(-1)  # first each slot's own colours choose the glyphs, then the common ones
    at = np.arange(len(products))[:, None]
    for _ in range(2):
        total = (gram[at, picks] * is_slot[..., None, None]).sum(1)
        chosen = np.take_along_axis(products, picks[:, :, None, None, None], 3)[:, :, :, 0].sum(1)
        colours = np.linalg.solve(total, chosen)
        curved = np.einsum("gtkj,gkj->gt", gram, colours @ colours.transpose(0, 2, 1))
        costs = squares[..., None] - 2 * np.einsum("gskto,gko->gst", products, colours) + curved[:, None]
        picks, cost = costs.argmin(-1), (costs.min(-1) * is_slot).sum(1)
    return CommonFit(picks, colours, np.maximum(cost, 0.0))


def squares(pixels: Floats) -> Floats:
    """(B, N, 3) -> (B,) sums of squares."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    return np.einsum("bn,bn->b", flat, flat)


def _three(kind: str, size: int, height: int, dx: int, dy: int) -> Floats:
    """(32, 32, 3) weights of background, outline and body of an object at an offset in its cell."""
    edge_mask, body_mask = shape_masks(kind, size, height)
    edge, body = np.zeros((CELL_PX + 2, CELL_PX + 2)), np.zeros((CELL_PX + 2, CELL_PX + 2))
    edge[dy : dy + height + 2, dx : dx + size + 2] = np.asarray(edge_mask, dtype=np.float64) / 255
    body[dy + 1 : dy + 1 + height, dx + 1 : dx + 1 + size] = np.asarray(body_mask, dtype=np.float64) / 255
    edge, body = edge[1:-1, 1:-1], body[1:-1, 1:-1]
    return np.stack([(1 - edge) * (1 - body), edge * (1 - body), body], axis=-1)


def _soft(weights: Floats, blur: float) -> Floats:
    if not blur:
        return weights
    return np.stack([gaussian_filter(weights[..., k], blur, mode="nearest") for k in range(weights.shape[-1])], -1)


def _offsets(size: int) -> range:
    return range(1, CELL_PX - size)


@cache
def objects(blur: float) -> Bank:
    """Objects without a plate: (kind, size, dx, dy) over whole cells."""
    names, weights = [], []
    for kind in KINDS:
        for size in SIZES:
            for dy in _offsets(size):
                for dx in _offsets(size):
                    names.append((kind, size, dx, dy))
                    weights.append(_soft(_three(kind, size, size, dx, dy), blur).reshape(-1, 3))
    return Bank.build(names, weights)


@cache
def plated(blur: float) -> Bank:
    """Upper parts of objects that carry a number, rows above the plate."""
    names, weights = [], []
    for kind in NUMBERED_KINDS:
        for size in SIZES:
            for dx in _offsets(size):
                names.append((kind, size, dx, 0))
                whole = _soft(_three(kind, size, PLATE_HEIGHT, dx, 0), blur)
                weights.append(whole[: PLATE_TOP - 1].reshape(-1, 3))
    return Bank.build(names, weights)


@cache
def digits(blur: float) -> Bank:
    """Digits of a plate: paper and ink over one slot."""
    names, weights = [], []
    for digit in "0123456789":
        slot = np.zeros((CELL_PX, 16))
        glyph = np.asarray(glyph_mask(digit, "sans", 2, 0.0, 11, 13), dtype=np.float64) / 255
        left = (16 - glyph.shape[1]) // 2
        slot[17 : 17 + glyph.shape[0], left : left + glyph.shape[1]] = glyph
        names.append(digit)
        weights.append(_two(slot, blur)[DIGIT_ROWS, SLOT_COLS].reshape(-1, 2))
    return Bank.build(names, weights)


@cache
def letters(blur: float) -> Bank:
    """Letters of all sign fonts, one font after the other: board and ink over one slot."""
    names, weights = [], []
    for face, weight, shear in FONTS:
        for letter in LETTERS:
            slot = np.zeros((CELL_PX, 16))
            glyph = np.asarray(glyph_mask(letter, face, weight, shear, 13, 20), dtype=np.float64) / 255
            left = (16 - glyph.shape[1]) // 2
            slot[6 : 6 + glyph.shape[0], left : left + glyph.shape[1]] = glyph
            names.append(letter)
            weights.append(_two(slot, blur)[LETTER_ROWS, SLOT_COLS].reshape(-1, 2))
    return Bank.build(names, weights)


def _two(slot: Floats, blur: float) -> Floats:
    return _soft(np.stack([1 - slot, slot], axis=-1), blur)
