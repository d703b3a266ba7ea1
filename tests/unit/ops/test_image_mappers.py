"""Mappers that write new pictures: names, guards of captions, pixels."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from bettersynth.ops._caption_guard import names_colour, names_extent, names_light, names_setting, swap_sides
from bettersynth.ops._context import OpContext
from bettersynth.ops._foreground import by_border
from bettersynth.ops.mappers.image_background_augment_mapper import ImageBackgroundAugmentMapper
from bettersynth.ops.mappers.image_blur_mapper import ImageBlurMapper
from bettersynth.ops.mappers.image_captioning_mapper import ImageCaptioningMapper
from bettersynth.ops.mappers.image_color_augment_mapper import ImageColorAugmentMapper, turn_hue
from bettersynth.ops.mappers.image_face_blur_mapper import ImageFaceBlurMapper
from bettersynth.ops.mappers.image_geometry_augment_mapper import (
    ImageGeometryAugmentMapper,
    crop,
    inner_rectangle,
    turn,
)
from bettersynth.ops.mappers.image_remove_background_mapper import ImageRemoveBackgroundMapper
from bettersynth.ops.mappers.image_tagging_mapper import ImageTaggingMapper

HERE = Path(__file__).parent
BLUR: dict[str, str] = json.loads((HERE / "data_juicer_images.json").read_text(encoding="utf-8"))["blur"]


def images_of(out: Any) -> list[list[str]]:
    found: list[list[str]] = out.column("images").to_pylist()
    return found


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int16)


@pytest.mark.parametrize("kind", sorted(BLUR))
def test_blurred_pixels_are_data_juicer_s(kind: str, batch: Any, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("tricky_pictures", HERE / "tricky_pictures.py")
    assert spec is not None and spec.loader is not None
    tricky = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tricky)
    tricky.WRITERS["rgb.png"](tmp_path / "rgb.png")
    made = ImageBlurMapper(p=1.0, blur_type=kind, save_dir=str(tmp_path / "new"))  # type: ignore[arg-type]
    out = made.apply(batch([""], images=[["rgb.png"]]), OpContext(image_roots=[tmp_path]))
    with Image.open(images_of(out)[0][0]) as image:
        assert hashlib.sha256(image.convert("RGB").tobytes()).hexdigest() == BLUR[kind]
    assert out.column("__dj__source_file__").to_pylist() == [["rgb.png"]]


def test_new_names_are_the_same_in_every_run_and_differ_by_parameters(ctx: Any, batch: Any, pictures: Path) -> None:
    rows = batch(["a"], images=[["0.png", "1.png", "0.png"]])
    first, again = (images_of(ImageBlurMapper(p=1.0).apply(rows, ctx))[0] for _ in range(2))
    other = images_of(ImageBlurMapper(p=1.0, radius=3).apply(rows, ctx))[0]
    assert first == again and not set(first) & set(other) and first[0] == first[2]
    assert first[0].startswith("__dj__produced_data__/image_blur_mapper/0__dj_hash_#") and first[0].endswith("#.png")
    assert (pictures / first[0]).is_file() and not list(pictures.rglob(".*"))
    chained = images_of(ImageBlurMapper(p=1.0).apply(batch(["a"], images=[[first[0]]]), ctx))[0][0]
    assert chained.count("__dj_hash_#") == chained.count("__dj__produced_data__") == 1
    Image.new("RGB", (9, 9)).save(pictures / "0.png")
    fresh = OpContext(seed=1, image_roots=[pictures])
    assert images_of(ImageBlurMapper(p=1.0).apply(rows, fresh))[0][0] != first[0], "another picture of the same name"


def test_the_share_that_is_blurred_follows_the_seed(batch: Any, pictures: Path) -> None:
    rows = batch(["a"] * 60)
    drawn = {}
    for seed in (1, 2):
        out = images_of(ImageBlurMapper(p=0.3).apply(rows, OpContext(seed=seed, image_roots=[pictures])))
        drawn[seed] = [len(row[0]) > 5 for row in out]
    assert drawn[1] != drawn[2] and 8 <= sum(drawn[1]) <= 30
    assert images_of(ImageBlurMapper(p=0.0).apply(rows, OpContext(image_roots=[pictures]))) == images_of(rows)
    empty = ImageBlurMapper(p=1.0).apply(batch(["a"], images=[[]]), OpContext(image_roots=[pictures]))
    assert images_of(empty) == [[]] and empty.column("__dj__source_file__").to_pylist() == [[]]


def test_the_noted_source_is_that_of_the_last_change(ctx: Any, batch: Any) -> None:
    once = ImageBlurMapper(p=1.0).apply(batch(["a"], images=[["0.png"]]), ctx)
    left_alone = ImageBlurMapper(p=0.0).apply(once, ctx)
    assert left_alone.column("__dj__source_file__").to_pylist() == [["0.png"]]
    twice = ImageBlurMapper(p=1.0, blur_type="box").apply(left_alone, ctx)
    assert twice.column("__dj__source_file__").to_pylist() == images_of(once)


def test_places_to_write_to(batch: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, ctx = batch(["a"], images=[["0.png"]]), OpContext(image_roots=[pictures])
    inside = images_of(ImageBlurMapper(p=1.0, save_dir="new/pics").apply(rows, ctx))[0][0]
    assert inside.startswith("new/pics/0__dj") and (pictures / inside).is_file()
    monkeypatch.setenv("DJ_PRODUCED_DATA_DIR", str(tmp_path / "made"))
    beside = images_of(ImageBlurMapper(p=1.0).apply(rows, ctx))[0][0]
    assert beside.startswith(f"{tmp_path}/made/image_blur_mapper/0__dj") and Path(beside).is_file()
    assert Path(beside).name == Path(inside).name


def test_only_faces_are_blurred(ctx: Any, batch: Any, pictures: Path) -> None:
    rows = batch(["a"] * 6)
    out = images_of(ImageFaceBlurMapper(cv_classifier="fake", radius=5).apply(rows, ctx))
    from bettersynth.infer.fake import FakeFaces

    for number, (new,) in enumerate(out):
        image = ctx.image(pictures / f"{number}.png")
        faces = FakeFaces().faces([image])[0]
        assert (new == f"{number}.png") == (not faces)
        if faces:
            changed = np.abs(pixels(pictures / new) - np.asarray(image, np.int16)).sum(2) > 0
            inside = np.zeros_like(changed)
            for left, top, width, height in faces:
                inside[top : top + height, left : left + width] = True
            assert changed.any() and not (changed & ~inside).any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red dog", "a red dog"),
        ("a dog on the left of a cat", "a dog on the right of a cat"),
        ("Left side: a tree; the far right, a car", "Right side: a tree; the far left, a car"),
        ("a man on the far left in a hat", "a man on the far right in a hat"),
        ("the leftmost of two cups, right-hand door", "the rightmost of two cups, left-hand door"),
        ("people walk from left to right", "people walk from right to left"),
        ("a boy looking left", "a boy looking right"),
        ("a bus in the upper Right corner", "a bus in the upper Left corner"),
        ("a bus in the upper RIGHT corner", None),
        ("his left hand", "his right hand"),
        ("he left the house", None),
        ("the right time", None),
        ("they sit in the right order", None),
        ("a cake right next to a cup", None),
        ("nothing is left", None),
        ("copyright, bright lights", "copyright, bright lights"),
        ("a sign on the left", None),
        ("a bus with STOP on it", None),
        ("2 dogs", None),
        ("左边的狗和右边的猫", "右边的狗和左边的猫"),
        ("大约十岁左右的男孩", None),
        ("写着字的墙", None),
    ],
)
def test_mirrored_captions_are_true_or_refused(text: str, expected: str | None) -> None:
    assert swap_sides(text) == expected
    if expected is not None:
        assert swap_sides(expected) == text


def test_words_that_forbid_changes() -> None:
    assert names_colour("a Reddish wall") and names_colour("一只白猫") and not names_colour("a dog runs")
    assert names_light("at night") and not names_light("a dog runs")
    assert names_extent("two dogs") and names_extent("at the edge") and not names_extent("a dog runs")
    assert names_setting("a dog on grass") and not names_setting("a dog runs")


def made(operator: Any, texts: list[str], ctx: Any, batch: Any, images: Any = None) -> tuple[list[str], list[str], Any]:
    operator.check()
    out = operator.make(batch(texts, images=images), ctx)
    return out.batch.column("text").to_pylist(), [row[0] if row else "" for row in images_of(out.batch)], out


def test_mirroring_changes_pixels_and_words_together(ctx: Any, batch: Any, pictures: Path) -> None:
    operator = ImageGeometryAugmentMapper(flip_p=1.0, max_degrees=0, min_area=1.0)
    texts = ["<__dj__image> a dog on the left <|__dj__eoc|>", "<__dj__image> the sign says STOP <|__dj__eoc|>"]
    new_texts, new_images, out = made(operator, texts, ctx, batch)
    assert new_texts == [texts[0], texts[0].replace("left", "right"), texts[1]]
    assert out.source.tolist() == [0, 0, 1] and out.is_child.tolist() == [False, True, False]
    expected = np.asarray(ImageOps.mirror(ctx.image(pictures / "0.png")), np.int16)
    assert (pixels(pictures / new_images[1]) == expected).all()
    assert ctx.flags == {"image_geometry_augment_mapper: the caption allows no change": 1}
    skipped, _, _ = made(
        ImageGeometryAugmentMapper(flip_p=1.0, max_degrees=0, min_area=1.0, on_sides="skip"), texts, ctx, batch
    )
    assert skipped == texts


def test_originals_go_only_when_there_is_a_copy(ctx: Any, batch: Any) -> None:
    operator = ImageColorAugmentMapper(keep_original_sample=False, aug_num=2)
    texts = ["<__dj__image> a dog", "<__dj__image> a red dog at night", "no picture", "two"]
    _, images, out = made(operator, texts, ctx, batch, [["0.png"], ["1.png"], [], ["0.png", "1.png"]])
    assert out.source.tolist() == [0, 0, 1, 2, 3] and out.is_child.tolist() == [False, True, False, False, False]
    assert images[0] != images[1] and images[2:] == ["1.png", "", "0.png"]
    assert ctx.flags["image_color_augment_mapper: not one picture"] == 2


def test_colours_named_in_the_caption_keep_their_hue(ctx: Any, batch: Any, pictures: Path) -> None:
    operator = ImageColorAugmentMapper(brightness=0, contrast=0, saturation=0.5, hue=0.3)
    plain, _, _ = made(operator, ["<__dj__image> a dog", "<__dj__image> a blue dog"], ctx, batch)
    assert plain == ["<__dj__image> a dog"] * 2 + ["<__dj__image> a blue dog"]
    red = Image.new("RGB", (2, 2), (250, 10, 10))
    turned = np.asarray(turn_hue(red, 1 / 3))[0, 0]
    assert turned[1] > 200 and turned[0] < 30  # a third of the circle: red becomes green
    with pytest.raises(ValueError, match="above 0"):
        ImageColorAugmentMapper(brightness=0, contrast=0, saturation=0, hue=0).check()


def test_turning_leaves_no_empty_corner(ctx: Any) -> None:
    white = Image.new("RGB", (120, 80), "white")
    for degrees in (-30, -5, 3, 12, 44):
        turned = np.asarray(turn(white, degrees))
        assert (turned[2:-2, 2:-2] == 255).all() and turned.shape[0] < 80
    width, height = inner_rectangle(100, 100, math.radians(45))
    assert width == pytest.approx(100 / math.sqrt(2), rel=1e-6) == height
    assert crop(white, 0.5, (1.0, 1.0)).size == (60, 40)


def test_copies_do_not_depend_on_the_batch(ctx: Any, batch: Any, pictures: Path) -> None:
    operator = ImageGeometryAugmentMapper()
    texts = ["<__dj__image> a dog"] * 6
    whole = operator.make(batch(texts), ctx).batch
    parts = [
        operator.make(batch(texts).slice(start, 2), OpContext(seed=1, image_roots=[pictures])).batch
        for start in (0, 2, 4)
    ]
    assert images_of(whole) == [row for part in parts for row in images_of(part)]


def product() -> Image.Image:
    image = Image.new("RGB", (120, 90), (240, 240, 235))
    ImageDraw.Draw(image).ellipse((35, 20, 85, 70), fill=(180, 30, 40))
    return image


def test_border_colours_tell_a_thing_on_a_plain_ground() -> None:
    mask = by_border(product())
    assert mask.shape == (90, 120) and mask[45, 60] == 1 and mask[5, 5] == 0
    assert mask.mean() == pytest.approx(math.pi * 25**2 / (120 * 90), rel=0.15)
    assert by_border(Image.new("RGB", (30, 30), "blue")).max() == 0
    assert by_border(Image.new("RGB", (1, 1))).shape == (1, 1)


@pytest.mark.parametrize("mode", ["blur", "color", "gradient", "noise"])
def test_the_thing_stays_and_the_ground_changes(mode: Any, ctx: Any, batch: Any, pictures: Path) -> None:
    product().save(pictures / "thing.png")
    operator = ImageBackgroundAugmentMapper(mode=mode)
    _, images, _ = made(operator, ["<__dj__image> a ball"], ctx, batch, [["thing.png"]])
    before, after = pixels(pictures / "thing.png"), pixels(pictures / images[1])
    assert (after[40:50, 55:65] == before[40:50, 55:65]).all()
    assert (after[:8] != before[:8]).any() or mode == "blur"


def test_backgrounds_stay_where_captions_or_pictures_say_so(ctx: Any, batch: Any, pictures: Path) -> None:
    product().save(pictures / "thing.png")
    images = [["thing.png"]]
    for caption in ("a ball on a table", "a red ball", "a ball, white background"):
        assert len(made(ImageBackgroundAugmentMapper(mode="color"), [caption], ctx, batch, images)[0]) == 1
    assert len(made(ImageBackgroundAugmentMapper(), ["a ball on a table"], ctx, batch, images)[0]) == 2
    Image.new("RGB", (40, 40), "blue").save(pictures / "flat.png")
    assert len(made(ImageBackgroundAugmentMapper(), ["a ball"], ctx, batch, [["flat.png"]])[0]) == 1
    assert ctx.flags["image_background_augment_mapper: no foreground that stands out"] == 1
    fake = ImageBackgroundAugmentMapper(hf_segmenter="fake", mode="color")
    assert len(made(fake, ["a ball"], ctx, batch, [["flat.png"]])[0]) == 2


def test_cut_out_pictures_are_transparent_or_on_a_colour(ctx: Any, batch: Any, pictures: Path) -> None:
    product().save(pictures / "thing.jpg", quality=95)
    rows = batch(["a", "b"], images=[["thing.jpg"], []])
    out = images_of(ImageRemoveBackgroundMapper(alpha_matting=True).apply(rows, ctx))
    assert out[1] == [] and out[0][0].endswith(".png")
    with Image.open(pictures / out[0][0]) as image:
        assert image.mode == "RGBA" and image.getpixel((2, 2))[3] == 0 and image.getpixel((60, 45))[3] == 255  # type: ignore[index]
    coloured = images_of(ImageRemoveBackgroundMapper(bgcolor=(0, 255, 0, 255)).apply(rows, ctx))[0][0]
    assert pixels(pictures / coloured)[2, 2].tolist() == [0, 255, 0]
    with pytest.raises(ValueError, match="four parts"):
        ImageRemoveBackgroundMapper(bgcolor=(1, 2, 3)).check()


def test_tags_come_best_first_and_follow_the_pixels(ctx: Any, batch: Any) -> None:
    operator = ImageTaggingMapper(hf_clip="fake", top_k=3, min_share=0.0)
    rows = batch(["a"] * 3, images=[["0.png", "1.png"], [], ["copy.png"]])
    tags = operator.apply(rows, ctx).column("image_tags").to_pylist()
    assert [len(row) for row in tags] == [2, 0, 1] and tags[0][0] == tags[2][0] != tags[0][1]
    assert all(len(entry) == 3 for row in tags for entry in row)
    sure = ImageTaggingMapper(hf_clip="fake", top_k=3, min_share=0.9).apply(rows, ctx).column("image_tags").to_pylist()
    assert all(len(entry) <= 1 for row in sure for entry in row)
    with pytest.raises(ValueError, match="different words"):
        ImageTaggingMapper(tags=("a", "a")).check()


def test_a_row_s_own_prompt_goes_before_the_common_one(ctx: Any, batch: Any, pictures: Path) -> None:
    import orjson
    import pyarrow as pa

    texts = ["<image> a <|__dj__eoc|>"] * 3
    rows = batch(texts, images=[["0.png"], ["1.png"], ["0.png"]])
    records = pa.array([orjson.dumps(record).decode() for record in ({"ask": "x"}, {}, {"ask": "y"})])
    rows = rows.set_column(rows.schema.get_field_index("__record__"), "__record__", records)
    operator = ImageCaptioningMapper(hf_img2seq="fake", prompt="p", prompt_key="ask", keep_original_sample=False)
    out = operator.make(rows, ctx).batch.column("text").to_pylist()
    captioner = ctx.captioner("fake")
    for text, name, prompt in zip(out, ("0.png", "1.png", "0.png"), ("x", "p", "y"), strict=True):
        assert captioner.caption([ctx.image(pictures / name)], prompt=prompt, max_new_tokens=128)[0] in text
