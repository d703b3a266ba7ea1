"""Draw a scene: 96 x 96 px RGB pictures, about a thousand a second on one thread.

Shapes, glyphs and backgrounds are drawn once at four times the size, scaled down and kept; a picture is
then a handful of pastes and one pass of photometric noise. Letters come from the two typefaces that Pillow
itself carries (Aileron and its small bitmap font), so no font file has to be shipped.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from bettersynth.demo.world.scene import CELL_PX, IMAGE_PX, NUM_SIGN_STYLES, PATCH_PX, Scene, Sign, Thing

Colour = tuple[int, int, int]

_SCALE = 4
RGB: dict[str, Colour] = {
    "red": (212, 36, 40),
    "orange": (246, 136, 16),
    "yellow": (246, 224, 44),
    "green": (36, 160, 62),
    "blue": (36, 84, 216),
    "purple": (146, 48, 178),
    "white": (246, 246, 246),
    "black": (22, 22, 24),
}
DARK_BACKGROUNDS = ("forest", "night", "street")

# (board, letters, typeface, weight in 1/4 px, shear): what NUM_SIGN_STYLES sign styles look like.
SIGN_LOOKS: tuple[tuple[Colour, Colour, str, int, float], ...] = (
    ((250, 250, 250), (16, 16, 16), "sans", 0, 0.0),
    ((250, 214, 40), (20, 20, 20), "sans", 3, 0.0),
    ((20, 104, 62), (250, 250, 250), "sans", 2, 0.0),
    ((32, 62, 150), (250, 250, 240), "bitmap", 0, 0.0),
    ((186, 24, 32), (255, 255, 255), "sans", 3, 0.15),
    ((24, 24, 26), (250, 208, 60), "sans", 1, 0.0),
    ((240, 232, 208), (150, 20, 24), "bitmap", 0, 0.0),
    ((112, 72, 40), (252, 240, 212), "sans", 1, 0.15),
)
assert len(SIGN_LOOKS) == NUM_SIGN_STYLES  # an invariant of this file, not of user input


def render(scene: Scene) -> Image.Image:
    """The picture of a scene, 96 x 96 px RGB. The same scene gives the same bytes."""
    rng = np.random.default_rng(scene.seed)
    image = Image.fromarray(background(scene.background, int(rng.integers(6))))
    outline = outline_colour(scene.background)
    for thing in scene.things:
        _draw_thing(image, thing, outline, rng)
    for sign in scene.signs:
        _draw_sign(image, sign)
    return _photometric(image, rng)


def outline_colour(name: str) -> Colour:
    """The colour around objects: light on dark backgrounds, dark on light ones."""
    return (236, 236, 228) if name in DARK_BACKGROUNDS else (44, 40, 40)


def render_array(scene: Scene) -> np.ndarray:
    """The picture of a scene as a uint8 array (96, 96, 3)."""
    return np.asarray(render(scene))


def _photometric(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness +-8 %, contrast +-12 % and noise of about 5 grey levels."""
    pixels = np.asarray(image, dtype=np.float32)
    gain, shift = rng.uniform(0.88, 1.12), rng.uniform(-18, 18)
    noise = rng.integers(-9, 10, pixels.shape, dtype=np.int8)
    pixels = (pixels - 128.0) * np.float32(gain) + np.float32(128.0 + shift) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# --- objects ----------------------------------------------------------------------------------------------


def _draw_thing(image: Image.Image, thing: Thing, outline: Colour, rng: np.random.Generator) -> None:
    top, left = thing.cell[0] * CELL_PX, thing.cell[1] * CELL_PX
    has_plate = thing.number is not None
    size = 26 + 2 * int(rng.integers(2))
    height = 22 if has_plate else size
    dx = int(rng.integers(0, CELL_PX - size - 1)) + 1
    dy = 0 if has_plate else int(rng.integers(0, CELL_PX - size - 1)) + 1
    base = RGB[thing.colour]
    red, green, blue = (int(np.clip(c + rng.integers(-12, 13), 0, 255)) for c in base)
    edge, body = shape_masks(thing.kind, size, height)
    image.paste(outline, (left + dx - 1, top + dy - 1), edge)
    image.paste((red, green, blue), (left + dx, top + dy), body)
    if has_plate:
        ImageDraw.Draw(image).rectangle((left, top + 15, left + 31, top + 31), (250, 250, 250), (30, 30, 30))
        for index, digit in enumerate(str(thing.number)):
            glyph = glyph_mask(digit, "sans", 2, 0.0, 11, 13)
            x_px = left + PATCH_PX * index + (PATCH_PX - glyph.width) // 2
            image.paste((16, 16, 16), (x_px, top + 17), glyph)


@cache
def shape_masks(kind: str, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """Masks of the outline (2 px larger) and of the body of a kind."""
    big = Image.new("L", (_SCALE * width, _SCALE * height), 0)
    _SHAPES[kind](ImageDraw.Draw(big), _SCALE * width - 1, _SCALE * height - 1)
    body = big.resize((width, height), Image.Resampling.BOX)
    edge = Image.new("L", (width + 2, height + 2), 0)
    edge.paste(body, (1, 1))
    return edge.filter(ImageFilter.MaxFilter(3)), body


def _ball(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.ellipse((0, 0, w, h), 255)
    draw.arc((0.15 * w, 0.15 * h, 0.85 * w, 0.85 * h), 180, 270, 110, _SCALE)


def _cup(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.12 * h, 0.66 * w, h), 255)
    draw.ellipse((0.46 * w, 0.28 * h, w, 0.78 * h), None, 255, 3 * _SCALE)


def _star(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    points = []
    for i in range(10):
        radius = 0.5 if i % 2 == 0 else 0.21
        angle = math.pi * (i / 5 - 0.5)
        points.append((w * (0.5 + radius * math.cos(angle)), h * (0.53 + 1.05 * radius * math.sin(angle))))
    draw.polygon(points, 255)


def _tree(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0.4 * w, 0.6 * h, 0.6 * w, h), 255)
    draw.polygon([(0.5 * w, 0), (0.85 * w, 0.42 * h), (0.15 * w, 0.42 * h)], 255)
    draw.polygon([(0.5 * w, 0.2 * h), (w, 0.76 * h), (0, 0.76 * h)], 255)


def _hat(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.72 * h, w, 0.92 * h), 255)
    draw.rectangle((0.24 * w, 0.1 * h, 0.76 * w, 0.6 * h), 255)
    draw.rectangle((0.24 * w, 0.6 * h, 0.76 * w, 0.72 * h), 100)


def _kite(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.polygon([(0.5 * w, 0), (0.92 * w, 0.36 * h), (0.5 * w, 0.78 * h), (0.08 * w, 0.36 * h)], 255)
    draw.line([(0.5 * w, 0.78 * h), (0.3 * w, 0.88 * h), (0.66 * w, h)], 255, 2 * _SCALE)
    draw.line([(0.5 * w, 0), (0.5 * w, 0.78 * h)], 110, _SCALE)
    draw.line([(0.08 * w, 0.36 * h), (0.92 * w, 0.36 * h)], 110, _SCALE)


def _heart(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.ellipse((0, 0.06 * h, 0.52 * w, 0.56 * h), 255)
    draw.ellipse((0.48 * w, 0.06 * h, w, 0.56 * h), 255)
    draw.polygon([(0.04 * w, 0.42 * h), (0.96 * w, 0.42 * h), (0.5 * w, h)], 255)


def _house(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.polygon([(0.5 * w, 0), (w, 0.44 * h), (0, 0.44 * h)], 255)
    draw.rectangle((0.12 * w, 0.44 * h, 0.88 * w, h), 255)
    draw.rectangle((0.4 * w, 0.62 * h, 0.6 * w, h), 70)


def _boat(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.polygon([(0.06 * w, 0.68 * h), (0.94 * w, 0.68 * h), (0.76 * w, h), (0.22 * w, h)], 255)
    draw.rectangle((0.44 * w, 0, 0.5 * w, 0.68 * h), 255)
    draw.polygon([(0.56 * w, 0.02 * h), (0.56 * w, 0.58 * h), (w, 0.58 * h)], 255)


def _car(draw: ImageDraw.ImageDraw, w: int, h: int) -> None:
    draw.rounded_rectangle((0, 0.42 * h, w, 0.8 * h), 0.12 * w, 255)
    draw.polygon([(0.2 * w, 0.42 * h), (0.32 * w, 0.12 * h), (0.72 * w, 0.12 * h), (0.84 * w, 0.42 * h)], 255)
    draw.rectangle((0.36 * w, 0.2 * h, 0.68 * w, 0.38 * h), 90)
    for x in (0.24, 0.76):
        draw.ellipse(((x - 0.15) * w, 0.66 * h, (x + 0.15) * w, h), 150)


_SHAPES = {
    "ball": _ball,
    "cup": _cup,
    "star": _star,
    "tree": _tree,
    "hat": _hat,
    "kite": _kite,
    "heart": _heart,
    "house": _house,
    "boat": _boat,
    "car": _car,
}


# --- signs ------------------------------------------------------------------------------------------------


def _draw_sign(image: Image.Image, sign: Sign) -> None:
    board, ink, face, weight, shear = SIGN_LOOKS[sign.style]
    top, right = sign.row * CELL_PX, sign.x_px + PATCH_PX * len(sign.word) - 1
    draw = ImageDraw.Draw(image)
    draw.rectangle((sign.x_px, top + 2, right, top + 29), board, (60, 56, 52))
    for index, letter in enumerate(sign.word):
        glyph = glyph_mask(letter, face, weight, shear, 13, 20)
        x_px = sign.x_px + PATCH_PX * index + (PATCH_PX - glyph.width) // 2
        image.paste(ink, (x_px, top + 6), glyph)


@cache
def glyph_mask(letter: str, face: str, weight: int, shear: float, max_width: int, height: int) -> Image.Image:
    """Mask of one character, `height` px high and at most `max_width` px wide (wide ones are condensed)."""
    if face == "bitmap":
        font: ImageFont.ImageFont | ImageFont.FreeTypeFont = ImageFont.load_default_imagefont()
        big = Image.new("L", (24, 24), 0)
        ImageDraw.Draw(big).text((6, 6), letter, 255, font)
        big = big.crop(big.getbbox())
        return big.resize((max(3, min(max_width, 2 * big.width)), height), Image.Resampling.NEAREST)
    font = ImageFont.load_default(_SCALE * height * 1.4)
    big = Image.new("L", (_SCALE * height * 3, _SCALE * height * 3), 0)
    ImageDraw.Draw(big).text((_SCALE * height, _SCALE * height // 2), letter, 255, font, stroke_width=weight)
    if shear:
        matrix = (1, shear, -shear * big.height / 2, 0, 1, 0)
        big = big.transform(big.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    big = big.crop(big.getbbox())
    width = max(3, min(max_width, round(big.width * height / big.height)))
    return big.resize((width, height), Image.Resampling.LANCZOS)


# --- backgrounds ------------------------------------------------------------------------------------------


@cache
def background(name: str, variant: int) -> np.ndarray:
    """One of six variants of a background, uint8 (96, 96, 3)."""
    rng = np.random.default_rng([len(name), ord(name[0]), variant])
    image = Image.new("RGB", (IMAGE_PX, IMAGE_PX))
    _BACKGROUND_PAINTERS[name](ImageDraw.Draw(image), rng)
    return np.asarray(image)


def _spots(draw: ImageDraw.ImageDraw, rng: np.random.Generator, fill: Colour, count: int, size: int) -> None:
    for x, y in rng.integers(0, IMAGE_PX, (count, 2)).tolist():
        draw.ellipse((x, y, x + size, y + size), fill)


def _beach(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), (228, 204, 152))
    _spots(draw, rng, (206, 176, 120), 90, 1)
    for y in range(int(rng.integers(4, 12)), 96, 24):
        draw.line([(x, y + 2 * math.sin(x / 6)) for x in range(0, 97, 3)], (120, 190, 224), 2)


def _forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), (64, 104, 66))
    for x in range(int(rng.integers(0, 8)), 96, 12):
        draw.rectangle((x, 0, x + 3, 96), (84, 68, 48))
    _spots(draw, rng, (84, 130, 80), 60, 3)


def _snow(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), (206, 218, 236))
    _spots(draw, rng, (250, 252, 255), 110, 2)


def _night(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), (22, 26, 66))
    _spots(draw, rng, (230, 226, 160), 36, 1)


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), (122, 122, 128))
    shift = int(rng.integers(0, 12))
    for y in range(shift, 96, 16):
        for x in range(shift - 12, 96, 20):
            draw.rectangle((x, y, x + 9, y + 1), (206, 206, 190))


def _room(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), (216, 180, 180))
    for x in range(int(rng.integers(0, 10)), 96, 10):
        draw.line((x, 0, x, 96), (196, 150, 154), 2)


_BACKGROUND_PAINTERS = {
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "night": _night,
    "street": _street,
    "room": _room,
}
