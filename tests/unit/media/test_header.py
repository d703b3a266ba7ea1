"""Picture facts from headers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.media.header import looks_truncated, read_header


def jpeg(orientation: int | None = None) -> bytes:
    image, buffer = Image.effect_noise((60, 40), 80).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(("orientation", "size"), [(None, (60, 40)), (3, (60, 40)), (6, (40, 60)), (8, (40, 60))])
def test_size_is_that_of_the_picture_as_shown(tmp_path: Path, orientation: int | None, size: tuple[int, int]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(orientation))
    header = read_header(path)
    assert (header.width, header.height) == size
    assert header.size_bytes == path.stat().st_size and header.format == "JPEG"


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, words in (("text.jpg", "not an image"), ("empty.png", "not an image"), ("none.jpg", "image not found")):
        with pytest.raises(DataError, match=words) as caught:
            read_header(tmp_path / name)
        assert name in str(caught.value.where)


def test_a_missing_end_marker_is_seen_without_decoding(tmp_path: Path) -> None:
    whole = jpeg()
    png = io.BytesIO()
    Image.effect_noise((60, 40), 80).save(png, "PNG")
    cases = {
        "whole.jpg": (whole, False),
        "cut.jpg": (whole[:-200], True),
        "tail.jpg": (whole + b"\0" * 30, False),
        "whole.png": (png.getvalue(), False),
        "cut.png": (png.getvalue()[:-40], True),
        "other.gif": (b"GIF89a", False),
    }
    for name, (data, expected) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert looks_truncated(tmp_path / name) is expected, name
    assert looks_truncated(tmp_path / "none.jpg") is False
