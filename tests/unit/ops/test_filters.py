"""Filters: bounds, pictures, models, combined scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bettersynth.core.errors import DataError
from bettersynth.infer.fake import FakeCaptioner
from bettersynth.ops.base import Adaptive, FittedFilter, otsu
from bettersynth.ops.filters.flagged_words_filter import FlaggedWordsFilter
from bettersynth.ops.filters.image_aspect_ratio_filter import ImageAspectRatioFilter
from bettersynth.ops.filters.image_caption_nll_filter import ImageCaptionNllFilter
from bettersynth.ops.filters.image_shape_filter import ImageShapeFilter
from bettersynth.ops.filters.image_size_filter import ImageSizeFilter, parse_size
from bettersynth.ops.filters.image_text_similarity_filter import ImageTextSimilarityFilter
from bettersynth.ops.filters.ocr_agreement_filter import OcrAgreementFilter
from bettersynth.ops.filters.quality_score_filter import QualityScoreFilter
from bettersynth.ops.filters.stat_range_filter import StatRangeFilter
from bettersynth.ops.filters.text_length_filter import TextLengthFilter


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [False, True, True, True, False]),
        ({"min_closed_interval": False}, [False, False, True, True, False]),
        ({"max_closed_interval": False}, [False, True, True, False, False]),
        ({"reversed_range": True}, [True, True, False, True, True]),
        ({"reversed_range": True, "min_closed_interval": False}, [True, False, False, True, True]),
    ],
)
def test_bounds_follow_data_juicer(options: dict[str, bool], kept: list[bool]) -> None:
    operator = TextLengthFilter(min_len=2, max_len=4, **options)
    stats = {"text_len": pa.array([1, 2, 3, 4, 5])}
    assert operator.keep(stats).tolist() == kept
    dropped = np.flatnonzero(~np.array(kept))
    reasons = operator.reasons(stats, dropped)
    assert len(reasons) == len(dropped)
    if not options:
        assert reasons == ["text_len below min_len", "text_len above max_len"]


def test_missing_values_stay() -> None:
    operator = ImageCaptionNllFilter(hf_img2seq="fake", max_nll=1.0)
    assert operator.keep({"image_caption_nll": pa.array([None, 0.5, 2.0])}).tolist() == [True, True, False]


def test_crossed_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="min_len 9 is above max_len 3"):
        TextLengthFilter(min_len=9, max_len=3).check()


def test_picture_filters_read_headers_and_keep_rows_without_pictures(ctx: Any, batch: Any) -> None:
    rows = batch(["a"] * 4, images=[["0.png"], ["5.png"], [], ["0.png", "5.png"]])
    shape = ImageShapeFilter(min_width=50)
    assert shape.keep(shape.score(rows, ctx)).tolist() == [False, True, True, True]
    every = ImageShapeFilter(min_width=50, any_or_all="all")
    assert every.keep(every.score(rows, ctx)).tolist() == [False, True, True, False]
    ratio = ImageAspectRatioFilter(max_ratio=2.0)
    stats = ratio.score(rows, ctx)
    assert stats["aspect_ratios"].to_pylist() == [[1.0], [2.25], [], [1.0, 2.25]]
    assert ratio.keep(stats).tolist() == [True, False, True, True]
    assert ratio.reasons(stats, np.array([1])) == ["aspect_ratios above max_ratio"]
    size = ImageSizeFilter(min_size="1MB")
    assert size.keep(size.score(rows, ctx)).tolist() == [False, False, True, False]
    assert not ctx._images  # nothing was decoded


def test_sizes_as_data_juicer_reads_them() -> None:
    assert [parse_size(text) for text in ("0", "10", "2KB", "2KiB", "1.5MB", "1TB")] == [
        0,
        10,
        2048,
        2048,
        15 << 20,
        1 << 40,
    ]
    with pytest.raises(ValueError, match="not a size"):
        ImageSizeFilter(min_size="5k").check()


def test_a_missing_picture_is_an_error_that_names_it(ctx: Any, batch: Any) -> None:
    for operator in (ImageShapeFilter(), ImageSizeFilter(), ImageTextSimilarityFilter(hf_clip="fake")):
        with pytest.raises(DataError, match="image not found"):
            operator.score(batch(["<image>a"], images=[["none.png"]]), ctx)


def test_flagged_words(batch: Any, ctx: Any, tmp_path: Any) -> None:
    (tmp_path / "flagged_words.json").write_text('{"en": ["bad"], "de": ["boese"]}')
    rows = batch(["A BAD, bad day", "fine", ""])
    for operator in (FlaggedWordsFilter(flagged_words=("bad",)), FlaggedWordsFilter(flagged_words_dir=str(tmp_path))):
        operator.check()
        assert operator.score(rows, ctx)["flagged_words_ratio"].to_pylist() == [0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="cannot read the word lists"):
        FlaggedWordsFilter(flagged_words_dir=str(tmp_path), lang="fr").check()
    with pytest.raises(ValueError, match="flagged_words"):
        FlaggedWordsFilter().check()


def test_similarity_gives_one_value_per_chunk_with_pictures(ctx: Any, batch: Any) -> None:
    text = "<image> a <|__dj__eoc|> words <|__dj__eoc|> <__dj__image><image> b <|__dj__eoc|>"
    rows = batch([text, "no picture", "<image>c"], images=[["0.png", "1.png", "2.png"], [], ["0.png"]])
    values = {}
    for mode in ("avg", "min", "max"):
        operator = ImageTextSimilarityFilter(hf_clip="fake", reduce_mode=mode)  # type: ignore[arg-type]
        values[mode] = operator.score(rows, ctx)["image_text_similarity"].to_pylist()
        assert [len(row) for row in values[mode]] == [2, 0, 1]
    assert values["min"][0][1] < values["avg"][0][1] < values["max"][0][1]
    assert values["min"][0][0] == values["max"][0][0]
    with pytest.raises(DataError, match="more image tokens"):
        ImageTextSimilarityFilter(hf_clip="fake").score(batch(["<image><image>"], images=[["0.png"]]), ctx)


def test_nll_is_low_for_the_captioners_own_words(ctx: Any, batch: Any) -> None:
    own = FakeCaptioner().caption([ctx.image(ctx.image_roots[0] / "0.png")])[0]
    rows = batch([f"<image>{own}", "<image>quite other words here", "text alone"], images=[["0.png"], ["0.png"], []])
    own_nll, other, none = ImageCaptionNllFilter(hf_img2seq="fake").score(rows, ctx)["image_caption_nll"].to_pylist()
    assert own_nll < other and none is None


def test_ocr_agreement_compares_quoted_words(ctx: Any, batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCaptioner, "caption", lambda self, images, **_: ["the sign says STOP 12"] * len(images))
    texts = ["<image>sign STOP", "<image>sign STEP", "<image>sign QQQQ", "<image>no sign here"]
    rows = batch(texts, images=[["0.png"]] * 4)
    values = OcrAgreementFilter(hf_img2seq="fake").score(rows, ctx)["ocr_agreement"].to_pylist()
    assert values[0] == 1.0 and 0.5 < values[1] < 1.0 and values[2] == 0.0 and values[3] is None
    finer = OcrAgreementFilter(hf_img2seq="fake", mode="nll").score(rows, ctx)["ocr_agreement"].to_pylist()
    assert finer[0] > 3 * finer[2] and finer[3] is None
    with pytest.raises(ValueError, match="regular expression"):
        OcrAgreementFilter(hf_img2seq="fake", word_pattern="(").check()


def test_quoted_words_come_with_the_nll_for_free(ctx: Any, batch: Any) -> None:
    rows = batch(["<image>sign STOP", "<image>no sign"], images=[["0.png"]] * 2)
    stats = ImageCaptionNllFilter(hf_img2seq="fake").score(rows, ctx)
    finer = OcrAgreementFilter(hf_img2seq="fake", mode="nll").score(rows, ctx)["ocr_agreement"]
    assert stats["quoted_words"].to_pylist() == finer.to_pylist()
    scored = OcrAgreementFilter(mode="scored")
    scored.check()
    with_stat = rows.append_column("stats.quoted_words", stats["quoted_words"])
    assert scored.score(with_stat, ctx)["ocr_agreement"].to_pylist() == finer.to_pylist()
    with pytest.raises(ValueError, match="hf_img2seq"):
        OcrAgreementFilter(mode="read").check()


def test_quality_score_is_the_rank_of_ranks(ctx: Any, batch: Any) -> None:
    operator = QualityScoreFilter(signals={"good": 1.0, "bad": -1.0}, min_score=0.5)
    rows = batch(["a"] * 5, good=[1.0, 2.0, 3.0, 4.0, None], bad=[[40.0], [30.0], [20.0], [10.0], [25.0]])
    verdict = operator.reduce(pa.table(operator.partial(rows, ctx)), ctx)
    assert verdict.columns["quality_score"].to_pylist() == [0.0, 0.25, 0.75, 1.0, 0.5]
    assert verdict.copies.tolist() == [0, 0, 1, 1, 1]
    assert verdict.reasons[0] == "quality_score below min_score" and verdict.reasons[2] == ""


def test_stats_can_be_looked_at_again(ctx: Any, batch: Any) -> None:
    operator = StatRangeFilter(stat="a", min_value=0.0, max_value=1.0)
    stats = operator.score(batch(["x"] * 4, a=[[0.5, 0.7], [-1.0], [3.0], []]), ctx)
    assert operator.keep(stats).tolist() == [True, False, False, True]
    assert operator.reasons(stats, np.array([1, 2])) == ["a below min_value", "a above max_value"]


def test_failing_rows_can_be_marked_for_repair(ctx: Any, batch: Any) -> None:
    inner = TextLengthFilter(min_len=3, mark_only=True)
    assert inner.adds() == ("stats.text_len", "stats.text_len_failed")
    operator = FittedFilter(inner=inner)
    verdict = operator.reduce(pa.table(operator.partial(batch(["a", "abc"]), ctx)), ctx)
    assert verdict.copies.tolist() == [1, 1] and verdict.columns["text_len_failed"].to_pylist() == [1, 0]
    assert verdict.facts == {"marked": 1}


def test_otsu_splits_between_two_groups() -> None:
    values = np.r_[np.full(30, 1.0), np.full(70, 5.0)]
    assert otsu(values) == 3.0
    assert otsu(np.array([2.0, 2.0])) == 2.0


@pytest.mark.parametrize(
    ("adaptive", "dropped"),
    [
        (Adaptive(method="quantile", low=0.2), 2),
        (Adaptive(method="quantile", low=0.1, high=0.1), 2),
        (Adaptive(method="otsu"), 4),
        (Adaptive(method="otsu", drop="high"), 6),
        (Adaptive(method="otsu", max_drop=0.1), 1),
    ],
)
def test_adaptive_thresholds_follow_the_data(adaptive: Adaptive, dropped: int, ctx: Any, batch: Any) -> None:
    lengths = [1, 2, 3, 4, 20, 21, 22, 23, 24, 25]
    operator = FittedFilter(inner=TextLengthFilter(adaptive_threshold=adaptive))
    partial = operator.partial(batch(["x" * n for n in lengths]), ctx)
    verdict = operator.reduce(pa.table(partial), ctx)
    assert int((verdict.copies == 0).sum()) == dropped
    assert verdict.columns["text_len"].to_pylist() == lengths
    assert set(verdict.facts) == {"fitted min_len", "fitted max_len"}
