from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.media.open import open_image


def _jpeg(size: int = 80) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (10, 20, 30, 0), (10, 20, 30)), ("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255)), ("P", 0, None)],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, expected):
    path = tmp_path / "x.png"
    Image.new(mode, (3, 2), colour).save(path)
    image = open_image(path)
    assert image.mode == "RGB" and image.size == (3, 2)
    if expected:
        assert image.getpixel((0, 0)) == expected


def test_bytes_and_file_give_the_same(tmp_path):
    (tmp_path / "x.jpg").write_bytes(_jpeg())
    assert open_image(tmp_path / "x.jpg").tobytes() == open_image(_jpeg()).tobytes()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_jpeg_is_refused(tmp_path, share):
    data = _jpeg()
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError) as caught:
        open_image(path)
    assert "cut.jpg" in caught.value.render()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff"])
def test_not_an_image(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not an image|damaged"):
        open_image(path)


def test_missing_file_and_given_name(tmp_path):
    with pytest.raises(DataError, match="image not found"):
        open_image(tmp_path / "none.png")
    with pytest.raises(DataError) as caught:
        open_image(b"x", name="row 7")
    assert "row 7" in caught.value.render()


def test_decompression_bomb(monkeypatch, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="too large"):
        open_image(tmp_path / "x.png")


def test_scaled_decoding_keeps_the_asked_size_and_the_look(tmp_path):
    small = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((1200, 800), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg")
    scaled = open_image(tmp_path / "a.jpg", at_least_px=200)
    assert scaled.size == (300, 200)  # a quarter; an eighth would be 150 wide
    expected = np.asarray(picture.resize((300, 200), Image.Resampling.BOX), np.int16)
    assert np.abs(np.asarray(scaled, np.int16) - expected).mean() < 3
    assert open_image(tmp_path / "a.jpg", at_least_px=1200).size == (1200, 800)


def test_a_palette_s_alpha_is_dropped_without_a_warning(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 7)
    picture.putpalette([value % 256 for value in range(768)])
    picture.save(tmp_path / "a.png", transparency=bytes(range(100)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB" and opened.getpixel((0, 0)) == (21, 22, 23) and "transparency" not in opened.info
