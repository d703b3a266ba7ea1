"""Small copies for pages."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from bettersynth.media.thumbnail import thumbnail


def test_thumbnails_stand_upright_and_look_like_the_picture(tmp_path: Path) -> None:
    small = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((1200, 800), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    with Image.open(io.BytesIO(thumbnail(tmp_path / "a.jpg", 120))) as shown:
        assert shown.size == (80, 120)
        upright = picture.transpose(Image.Transpose.ROTATE_270).resize((80, 120), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(shown, np.int16) - np.asarray(upright, np.int16)).mean() < 5
    Image.new("RGB", (30, 20), "red").save(tmp_path / "b.png")
    with Image.open(io.BytesIO(thumbnail(tmp_path / "b.png", 120))) as shown:
        assert shown.size == (30, 20)
