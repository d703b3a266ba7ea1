"""Filters that look at pictures: models behind stand-ins, and the ones that need none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from bettersynth.core.errors import DataError
from bettersynth.infer.fake import FakeClassifier, FakeFaces
from bettersynth.infer.protocols import Box
from bettersynth.ops._context import OpContext
from bettersynth.ops._images import second_class
from bettersynth.ops._phrases import noun_phrases
from bettersynth.ops.filters.adaptive_threshold_filter import AdaptiveThresholdFilter
from bettersynth.ops.filters.caption_agreement_filter import CaptionAgreementFilter, word_agreement
from bettersynth.ops.filters.image_aesthetics_filter import ImageAestheticsFilter
from bettersynth.ops.filters.image_face_count_filter import ImageFaceCountFilter
from bettersynth.ops.filters.image_face_ratio_filter import ImageFaceRatioFilter
from bettersynth.ops.filters.image_nsfw_filter import ImageNsfwFilter
from bettersynth.ops.filters.image_pair_similarity_filter import ImagePairSimilarityFilter
from bettersynth.ops.filters.image_shape_filter import ImageShapeFilter
from bettersynth.ops.filters.image_sharpness_filter import ImageSharpnessFilter, sharpness
from bettersynth.ops.filters.image_text_matching_filter import ImageTextMatchingFilter
from bettersynth.ops.filters.image_text_richness_filter import ImageTextRichnessFilter, lettering
from bettersynth.ops.filters.image_watermark_filter import ImageWatermarkFilter
from bettersynth.ops.filters.phrase_grounding_recall_filter import PhraseGroundingRecallFilter


def scored(operator: Any, rows: Any, ctx: Any) -> tuple[list[Any], list[bool], list[str]]:
    stats = operator.score(rows, ctx)
    kept = operator.keep(stats)
    return stats[operator.stat].to_pylist(), kept.tolist(), operator.reasons(stats, np.flatnonzero(~kept))


def page(lines: int, ground: Image.Image | None = None) -> Image.Image:
    image = ground or Image.new("RGB", (640, 480), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    for line in range(lines):
        draw.text((10, 10 + 26 * line), "The quick brown fox jumps over the lazy dog 1234", fill="black", font=font)
    return image


def smooth(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)


def test_values_by_path_count_a_repeated_picture_once_and_by_entry_twice(ctx: Any, batch: Any) -> None:
    rows = batch(["a"] * 3, images=[["0.png", "0.png", "1.png"], [], ["1.png"]])
    ratings, _, _ = scored(ImageAestheticsFilter(hf_scorer_model="fake"), rows, ctx)
    counts, kept, _ = scored(ImageFaceCountFilter(cv_classifier="fake"), rows, ctx)
    assert [len(row) for row in ratings] == [2, 0, 1] and ratings[0][1] == ratings[2][0]
    assert [len(row) for row in counts] == [3, 0, 1] and counts[0][0] == counts[0][1] and kept[1]


def test_ratings_are_scaled_by_the_model_s_name_or_as_asked(ctx: Any, batch: Any, pictures: Path) -> None:
    logit = FakeClassifier().logits([ctx.image(pictures / "0.png")])[0, 0]
    one = batch(["a"])
    assert scored(ImageAestheticsFilter(hf_scorer_model="fake"), one, ctx)[0] == [[round(float(logit), 5)]]
    assert scored(ImageAestheticsFilter(hf_scorer_model="fake", divide_by=5), one, ctx)[0] == [[round(logit / 5, 5)]]
    ctx._models["classifier", "x/aesthetics-predictor-v2"] = FakeClassifier()
    named = ImageAestheticsFilter(hf_scorer_model="x/aesthetics-predictor-v2")
    assert scored(named, one, ctx)[0] == [[round(logit / 10, 5)]]
    with pytest.raises(ValueError, match="divide_by"):
        ImageAestheticsFilter(divide_by=0).check()


def test_the_second_class_decides(ctx: Any, batch: Any) -> None:
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])
    assert second_class(logits) == [0.75, 0.0]
    with pytest.raises(DataError, match="one class"):
        second_class(np.zeros((2, 1)))
    rows = batch(["a"] * 6)
    values, kept, reasons = scored(ImageNsfwFilter(hf_nsfw_model="fake"), rows, ctx)
    assert kept == [value[0] <= 0.5 for value in values] and 0 < sum(kept) < 6
    assert set(reasons) == {"image_nsfw_score above max_score"}
    marked, kept, _ = scored(ImageWatermarkFilter(hf_watermark_model="fake", prob_threshold=0.3), rows, ctx)
    assert marked == values and kept == [value[0] <= 0.3 for value in values]


def test_faces(ctx: Any, batch: Any, pictures: Path) -> None:
    rows = batch(["a"] * 6)
    found = FakeFaces().faces([ctx.image(pictures / f"{n}.png") for n in range(6)])
    values, kept, _ = scored(ImageFaceRatioFilter(cv_classifier="fake", max_ratio=0.1), rows, ctx)
    for number, faces in enumerate(found):
        side = faces[0][2] if faces else 0
        assert values[number] == [side * side / (40 * (40 + 10 * number))]
    assert kept == [value[0] <= 0.1 for value in values]
    with pytest.raises(ValueError, match="scaleFactor"):
        ImageFaceCountFilter(scaleFactor=1.0).check()
    with pytest.raises(ValueError, match="pairs"):
        ImageFaceRatioFilter(minSize=(3,)).check()
    counts, kept, _ = scored(ImageFaceCountFilter(cv_classifier="fake"), rows, ctx)
    assert counts == [[float(len(faces))] for faces in found] and kept == [value == [1.0] for value in counts]


def test_matching_reduces_over_the_pictures_of_a_chunk(ctx: Any, batch: Any) -> None:
    text = "<image><image> two <|__dj__eoc|> no picture <|__dj__eoc|><image> one <|__dj__eoc|>"
    rows = batch([text], images=[["0.png", "1.png", "2.png"]])
    mean, _, _ = scored(ImageTextMatchingFilter(hf_blip="fake"), rows, ctx)
    low, _, _ = scored(ImageTextMatchingFilter(hf_blip="fake", reduce_mode="min"), rows, ctx)
    high, _, _ = scored(ImageTextMatchingFilter(hf_blip="fake", reduce_mode="max"), rows, ctx)
    assert len(mean[0]) == 2 and low[0][0] < mean[0][0] < high[0][0] and low[0][1] == high[0][1]
    assert mean[0][0] == pytest.approx((low[0][0] + high[0][0]) / 2, abs=1e-4)


def test_a_pair_is_two_different_pictures(ctx: Any, batch: Any) -> None:
    images = [["0.png", "1.png"], ["0.png", "0.png"], ["0.png"], [], ["0.png", "copy.png"]]
    rows = batch(["a"] * 5, images=images)
    low = ImagePairSimilarityFilter(hf_clip="fake", min_score=-1, max_score=0.999)
    values, kept, reasons = scored(low, rows, ctx)
    assert [len(value) for value in values] == [1, 0, 0, 0, 1] and values[4] == [1.0]
    assert kept == [True, False, False, False, False]
    assert reasons == [*["no two different pictures"] * 3, "image_pair_similarity above max_score"]
    _, kept, _ = scored(ImagePairSimilarityFilter(hf_clip="fake", min_score=-1, keep_others=True), rows, ctx)
    assert all(kept)


def test_phrases() -> None:
    assert noun_phrases("Two men and a dog. The dog runs!") == ["two men", "dog"]
    assert noun_phrases("") == noun_phrases("is it on the?") == []
    assert noun_phrases("a tall building, sitting quietly") == ["tall building"]


def test_recall_counts_each_phrase_and_each_place_once() -> None:
    recall = PhraseGroundingRecallFilter(conf_thr=0.2).recall
    a, b, far = (0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)
    assert recall([Box(0, 0.9, *a), Box(1, 0.8, *far)], 2, 10_000) == 1.0
    assert recall([Box(0, 0.9, *a), Box(0, 0.8, *far)], 2, 10_000) == 0.5
    assert recall([Box(0, 0.9, *a), Box(1, 0.8, *b)], 2, 10_000) == 0.5  # the same place
    assert recall([Box(0, 0.9, *a), Box(1, 0.1, *far)], 2, 10_000) == 0.5  # not sure enough
    assert recall([Box(0, 0.9, *a)], 1, 100) == 0.0  # the whole picture


def test_grounding_per_chunk_and_no_phrases_shift_nothing(ctx: Any, batch: Any) -> None:
    operator = PhraseGroundingRecallFilter(hf_owlvit="fake")
    texts = ["<image> is it <|__dj__eoc|><image> a red dog <|__dj__eoc|>", "<image> a red dog <|__dj__eoc|>"]
    values, kept, _ = scored(operator, batch(texts, images=[["0.png", "1.png"], ["1.png"]]), ctx)
    assert values[0] == [1.0, values[1][0]] and kept[0]


def test_blur_lowers_sharpness_and_size_does_not_matter(ctx: Any, batch: Any, pictures: Path) -> None:
    sharp = page(12)
    assert sharpness(sharp) > 20 * sharpness(sharp.filter(ImageFilter.GaussianBlur(3)))
    sharp.save(pictures / "sharp.png")
    sharp.resize((2560, 1920), Image.Resampling.BICUBIC).save(pictures / "large.png")
    sharp.filter(ImageFilter.GaussianBlur(6)).save(pictures / "soft.png")
    rows = batch(["a"] * 4, images=[["sharp.png"], ["soft.png"], ["large.png", "large.png"], []])
    values, kept, reasons = scored(ImageSharpnessFilter(), rows, ctx)
    assert kept == [True, False, True, True] and reasons == ["image_sharpness below min_score"]
    assert values[2][0] == values[2][1] and 0.5 < values[2][0] / values[0][0] < 2
    assert sharpness(Image.new("RGB", (1, 9))) == 0.0


def test_lettering_is_told_from_scenes_noise_and_stripes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    stripes = np.repeat(np.arange(640)[None] // 8 % 2 * 255, 480, axis=0).astype(np.uint8)
    for image in (smooth(0), Image.fromarray(noise), Image.fromarray(stripes), Image.new("RGB", (8, 8))):
        assert lettering(image) == 0.0
    few, many, on_scene = lettering(page(3)), lettering(page(17)), lettering(page(8, smooth(1)))
    assert 0.03 < few < on_scene * 2 and many > 0.3 and on_scene > 0.08


def test_text_richness_keeps_pages_out_and_a_model_may_judge(ctx: Any, batch: Any, pictures: Path) -> None:
    page(17).save(pictures / "page.png")
    rows = batch(["a"] * 3, images=[["page.png"], ["1.png"], []])
    _, kept, reasons = scored(ImageTextRichnessFilter(max_ratio=0.3), rows, ctx)
    assert kept == [False, True, True] and reasons == ["image_text_richness above max_ratio"]
    values, _, _ = scored(ImageTextRichnessFilter(hf_clip="fake"), rows, ctx)
    assert all(0 <= value <= 1 for row in values for value in row) and values[2] == []


def fitted(values: list[float | None], ctx: Any, batch: Any, **params: Any) -> Any:
    operator = AdaptiveThresholdFilter(stat="a", **params)
    operator.check()
    rows = batch(["x"] * len(values), a=values)
    return operator.reduce(pa.table(operator.partial(rows, ctx)), ctx)


def test_thresholds_follow_the_data(ctx: Any, batch: Any) -> None:
    usual = [float(v) for v in np.random.default_rng(0).normal(10, 1, 200)]
    values: list[float | None] = [*usual, 40.0, -30.0, None]
    assert np.flatnonzero(fitted(values, ctx, batch).copies == 0).tolist() == [200, 201]
    high = fitted(values, ctx, batch, side="high")
    assert np.flatnonzero(high.copies == 0).tolist() == [200] and list(high.facts) == ["fitted high"]
    assert high.reasons[200] == "a above the fitted bound"
    assert {200, 201} <= set(np.flatnonzero(fitted(values, ctx, batch, method="iqr").copies == 0).tolist())
    assert (fitted(values, ctx, batch, method="percentile", share=0.1).copies == 0).sum() == pytest.approx(41, abs=1)
    two = [0.1 + v / 100 for v in range(10)] + [5 + v / 100 for v in range(30)]
    assert np.flatnonzero(fitted(two, ctx, batch, method="otsu", side="low").copies == 0).tolist() == list(range(10))
    assert (fitted(two, ctx, batch, method="otsu", side="low", max_drop=0.1).copies == 0).sum() == 4


def test_thresholds_of_odd_data(ctx: Any, batch: Any) -> None:
    assert fitted([1.0] * 5, ctx, batch).copies.tolist() == [1] * 5
    assert fitted([None, None], ctx, batch).copies.tolist() == [1, 1]
    mostly = [1.0] * 30 + [9.0]
    assert np.flatnonzero(fitted(mostly, ctx, batch).copies == 0).tolist() == [30]
    sizes = [10.0 ** (v / 10) for v in range(30)] + [1e9]
    assert np.flatnonzero(fitted(sizes, ctx, batch, log=True).copies == 0).tolist() == [30]
    assert fitted([0.0, 1.0, 2.0], ctx, batch, log=True).copies.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="one group"):
        AdaptiveThresholdFilter(stat="a", method="otsu").check()
    with pytest.raises(ValueError, match="share"):
        AdaptiveThresholdFilter(stat="a", share=0.6).check()


def test_captions_agree_by_words_or_by_vectors(ctx: Any, batch: Any, pictures: Path) -> None:
    own = ctx.captioner("fake").caption([ctx.image(pictures / "0.png")])[0]
    rows = batch([f"<image> {own}", "<image> zebra crossing", "<image>", "none"], images=[["0.png"]] * 3 + [[]])
    values, kept, _ = scored(CaptionAgreementFilter(hf_img2seq="fake"), rows, ctx)
    assert values == [1.0, 0.0, None, None] and kept == [True, False, True, True]
    vectors, _, _ = scored(CaptionAgreementFilter(hf_img2seq="fake", hf_clip="fake"), rows, ctx)
    assert vectors[0] == 1.0 and vectors[1] < 0.999
    assert word_agreement("two glass cups", "a cup of glass") == pytest.approx(0.8)
    assert word_agreement("", "") == 0.0


def test_small_pictures_share_the_decode_unless_a_fraction_will_do(batch: Any, tmp_path: Path) -> None:
    for name, size in (("large.jpg", (900, 700)), ("medium.jpg", (300, 200)), ("large.png", (900, 700))):
        smooth(3).resize(size).save(tmp_path / name)
    ctx = OpContext(image_roots=[tmp_path])
    for name, shares in (("large.jpg", False), ("medium.jpg", True), ("large.png", True)):
        alone = np.asarray(ctx.small_image(tmp_path / name, 200))
        assert ((tmp_path / name, None) in ctx._images) is shares
        ctx.forget_images()
        ctx.image(tmp_path / name)
        assert (np.asarray(ctx.small_image(tmp_path / name, 200)) == alone).all(), "the recipe around changes nothing"
        assert max(alone.shape) == 200


@pytest.mark.parametrize(
    ("keys", "kept"),  # sides 10 x 20, 20 x 20, 30 x 20; checked against Data-Juicer's operator code
    [
        ({"min_width": 20}, [0, 1, 1]),
        ({"min_width": 20, "min_closed_interval": False}, [0, 0, 1]),
        ({"max_width": 20, "max_closed_interval": False}, [1, 0, 0]),
        ({"min_width": 20, "min_height": 30, "reversed_range": True}, [1, 1, 0]),
        ({"min_width": 20, "reversed_range": True}, [0, 0, 0]),
        ({"max_width": 0}, [0, 0, 0]),
    ],
)
def test_shape_takes_the_keys_that_every_range_takes(keys: dict[str, Any], kept: list[int]) -> None:
    stats = {"image_width": pa.array([[10], [20], [30]]), "image_height": pa.array([[20], [20], [20]])}
    assert ImageShapeFilter(**keys).keep(stats).tolist() == kept
