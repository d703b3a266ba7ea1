"""Picture facts from headers."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.media import header as header_module
from bettersynth.media.header import looks_truncated, read_header
from bettersynth.ops._context import OpContext


def _tricky() -> Any:
    place = Path(__file__).parents[1] / "ops" / "tricky_pictures.py"
    spec = importlib.util.spec_from_file_location("tricky_pictures", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tricky = _tricky()


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
        "film.jpg": (whole + b"film " * 5000, False),
        "cut_with_thumbnail.jpg": (whole[:2] + b"\xff\xe5\x00\x06\xff\xd9\xff\xd9" + whole[2:-200], True),
        "whole.png": (png.getvalue(), False),
        "cut.png": (png.getvalue()[:-40], True),
        "tail.png": (png.getvalue() + b"x" * 9000, False),
        "other.gif": (b"GIF89a", False),
    }
    for name, (data, expected) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert looks_truncated(tmp_path / name) is expected, name
    assert looks_truncated(tmp_path / "none.jpg") is False


def test_headers_and_pixels_agree_on_every_kind_of_picture(tmp_path: Path) -> None:
    names = tricky.draw(tmp_path)
    by_header, by_pixels = OpContext(image_roots=[tmp_path]), OpContext(image_roots=[tmp_path])
    for name in names:
        if name in tricky.DAMAGED:
            for look in (by_header.header, by_pixels.image):
                with pytest.raises(DataError):
                    look(tmp_path / name)
            continue
        header, image = by_header.header(tmp_path / name), by_pixels.image(tmp_path / name)
        assert (header.width, header.height) == image.size, name
        assert image.mode == "RGB" and header.size_bytes == (tmp_path / name).stat().st_size
    assert by_header.flags == {"truncated picture loaded": 2}  # JPEG and PNG; GIF and BMP show it only when decoded
    assert by_pixels.flags == {"truncated picture loaded": len(tricky.CUT)}


def test_the_usual_kinds_need_no_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tricky.draw(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("asked Pillow")

    monkeypatch.setattr(header_module, "_by_pillow", refuse)
    plain = ("rgb.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "turned6.jpg", "comment.jpg", "rgb.png", "late.png")
    plain += ("palette.png", "turned.png", "anim.gif", "lossy.webp", "lossless.webp", "rgb.bmp", "cut.jpg", "cut.png")
    for name in plain:
        assert read_header(tmp_path / name).width > 0
    for name in ("xmp.jpg", "two.mpo", "turned.webp", "cut.webp", "cut_head.jpg", "bad_ihdr.png", "text.jpg"):
        with pytest.raises(AssertionError, match="asked Pillow"):
            read_header(tmp_path / name)


def test_a_picture_too_large_to_decode_is_refused_by_its_header(tmp_path: Path) -> None:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "huge.jpg").write_bytes(bytes(data))
    with pytest.raises(DataError, match="too large"):
        read_header(tmp_path / "huge.jpg")
