from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bettersynth.media.resize import PAD_COLOUR, centre_crop, pad_to_square, resize_short_side, to_square_pixels

_SIDE = st.integers(1, 90)


def test_pad_colour_is_the_floored_mean():
    assert PAD_COLOUR == (122, 116, 104)


@settings(max_examples=40, deadline=None)
@given(width=_SIDE, height=_SIDE, mode=st.sampled_from(["pad", "square"]), size=st.integers(8, 40))
def test_result_is_always_the_asked_size(width, height, mode, size):
    pixels = to_square_pixels(Image.new("RGB", (width, height), (9, 9, 9)), size_px=size, aspect_ratio=mode)
    assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8


@given(width=_SIDE, height=_SIDE)
def test_padding_keeps_every_pixel(width, height):
    picture = Image.new("RGB", (width, height), (1, 2, 3))
    square = np.asarray(pad_to_square(picture))
    assert square.shape[0] == square.shape[1] == max(width, height)
    assert int((square == (1, 2, 3)).all(-1).sum()) == width * height


def test_odd_padding_goes_to_the_end():
    square = np.asarray(pad_to_square(Image.new("RGB", (4, 1), (0, 0, 0))))
    assert [tuple(row[0]) == (0, 0, 0) for row in square] == [False, True, False, False]


@pytest.mark.parametrize(("size", "expected"), [((97, 60), (103, 64)), ((60, 97), (64, 103)), ((50, 50), (64, 64))])
def test_short_side_is_scaled_and_the_long_one_floored(size, expected):
    assert resize_short_side(Image.new("RGB", size), 64).size == expected


def test_crop_is_centred_with_floor():
    strip = Image.fromarray(np.arange(15, dtype=np.uint8).reshape(1, 5, 3).repeat(2, axis=0))
    assert np.asarray(centre_crop(strip, 2))[0, :, 0].tolist() == [3, 6]


def test_crop_loses_ends_and_pad_does_not():
    wide = Image.new("RGB", (90, 30), (255, 0, 0))
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    cropped = to_square_pixels(wide, size_px=30, aspect_ratio="square")
    padded = to_square_pixels(wide, size_px=90, aspect_ratio="pad")
    assert (cropped[15] == (0, 0, 255)).all()
    assert tuple(padded[45, 2]) == (255, 0, 0) and tuple(padded[2, 45]) == PAD_COLOUR
