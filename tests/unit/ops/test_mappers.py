"""Mappers and generators that look at pictures."""

from __future__ import annotations

from typing import Any

import pytest

from bettersynth.infer.fake import FakeCaptioner, FakeScorer
from bettersynth.infer.protocols import TextNll
from bettersynth.ops.generators.qa_from_caption_generator import QaFromCaptionGenerator, questions
from bettersynth.ops.mappers.clean_links_mapper import CleanLinksMapper
from bettersynth.ops.mappers.image_captioning_mapper import ImageCaptioningMapper
from bettersynth.ops.mappers.recaption_mapper import Bound, RecaptionMapper

CAPTION = "<image>\n{} <|__dj__eoc|>"


def captions(ctx: Any, *names: str) -> list[str]:
    return FakeCaptioner().caption([ctx.image(ctx.image_roots[0] / name) for name in names])


def test_only_bad_captions_are_rewritten(ctx: Any, batch: Any) -> None:
    texts = [CAPTION.format(word) for word in "abcd"] + ["<image>x<|__dj__eoc|><image>y"]
    rows = batch(
        texts,
        images=[["0.png"], ["1.png"], ["2.png"], ["3.png"], ["4.png", "5.png"]],
        similarity=[0.1, 0.9, None, 0.9, 0.0],
        nll=[1.0, 9.0, 1.0, 1.0, 9.0],
    )
    operator = RecaptionMapper(hf_img2seq="fake", when={"similarity": Bound(below=0.5), "nll": Bound(above=5.0)})
    out = operator.apply(rows, ctx)
    new = captions(ctx, "0.png", "1.png")
    # Rows without a value, good rows, and rows with several pictures keep their text.
    assert out.column("text").to_pylist() == [CAPTION.format(new[0]), CAPTION.format(new[1]), *texts[2:]]
    # -1: bad, but a row with several pictures cannot be captioned as a whole
    assert out.column("stats.is_recaptioned").to_pylist() == [1, 1, 0, 0, -1]
    assert out.column("id").equals(rows.column("id"))
    assert len(ctx._images) == 2  # only the pictures of bad rows were opened
    assert operator.needs() == ("text", "images", "stats.similarity", "stats.nll")


def test_a_new_caption_must_win_by_the_margin(ctx: Any, batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FakeScorer, "score", lambda self, images, texts: __import__("numpy").array([len(t) / 100 for t in texts])
    )
    rows = batch([CAPTION.format("a"), CAPTION.format("w" * 400)], images=[["0.png"], ["1.png"]])
    out = RecaptionMapper(hf_img2seq="fake", hf_clip="fake").apply(rows, ctx)
    assert out.column("stats.is_recaptioned").to_pylist() == [1, -1]
    out = RecaptionMapper(hf_img2seq="fake", hf_clip="fake", margin=9.0).apply(rows, ctx)
    assert out.column("stats.is_recaptioned").to_pylist() == [-1, -1]


def test_a_new_caption_must_be_sure_of_the_words_it_quotes(
    ctx: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["the sign says STOP", "the sign says QQQQ", "a dog"]
    monkeypatch.setattr(FakeCaptioner, "caption", lambda self, images, **_: list(words[: len(images)]))
    nll = TextNll(0.0, (0.0, 0.0, 0.0, 0.05), ((0, 3), (4, 8), (9, 13), (14, 18)))
    unsure = TextNll(0.0, (0.0, 0.0, 0.0, 2.0), nll.spans)
    monkeypatch.setattr(FakeCaptioner, "nll", lambda self, images, texts: [nll, unsure, TextNll(0.0)])
    rows = batch([CAPTION.format("x")] * 3, images=[["0.png"], ["1.png"], ["2.png"]])
    out = RecaptionMapper(hf_img2seq="fake", min_quoted_words=0.8).apply(rows, ctx)
    assert out.column("stats.is_recaptioned").to_pylist() == [1, -1, 1]
    assert out.column("text").to_pylist()[1] == CAPTION.format("x")


def test_a_condition_needs_a_bound() -> None:
    with pytest.raises(ValueError, match=r"when\.x needs"):
        RecaptionMapper(when={"x": Bound()}).check()


@pytest.mark.parametrize(
    ("options", "source", "children"),
    [
        ({}, [0, 0, 1], [False, True, False]),
        ({"keep_original_sample": False}, [0, 1], [False, False]),
        ({"caption_num": 3, "keep_candidate_mode": "all"}, [0, 0, 0, 0, 1], [False, True, True, True, False]),
        ({"caption_num": 3, "keep_candidate_mode": "similar_one_simhash"}, [0, 0, 1], [False, True, False]),
        ({"caption_num": 3}, [0, 0, 1], [False, True, False]),
    ],
)
def test_captioning_makes_copies(
    options: dict[str, Any], source: list[int], children: list[bool], ctx: Any, batch: Any
) -> None:
    rows = batch([CAPTION.format("a"), "text alone"], images=[["0.png"], []])
    made = ImageCaptioningMapper(hf_img2seq="fake", **options).make(rows, ctx)
    assert made.source.tolist() == source and made.is_child.tolist() == children
    texts = made.batch.column("text").to_pylist()
    assert texts[-1] == "text alone"
    assert all(text.startswith("<image>\n") and text.endswith(" <|__dj__eoc|>") for text in texts[:-1])
    assert made.batch.column("id").to_pylist() == [f"i{row}" for row in source]
    if not options:
        assert texts[:2] == [CAPTION.format("a"), CAPTION.format(captions(ctx, "0.png")[0])]


def test_captioning_several_chunks_puts_each_caption_after_its_picture(ctx: Any, batch: Any) -> None:
    text = "<__dj__image> old <|__dj__eoc|> <__dj__image><__dj__image> older <|__dj__eoc|>"
    rows = batch([text], images=[["0.png", "1.png", "2.png"]])
    made = ImageCaptioningMapper(hf_img2seq="fake", keep_original_sample=False).make(rows, ctx)
    a, b, c = captions(ctx, "0.png", "1.png", "2.png")
    assert made.batch.column("text").to_pylist() == [
        f"<__dj__image> {a} <|__dj__eoc|><__dj__image> {b} <__dj__image> {c} <|__dj__eoc|>"
    ]


def test_questions_come_only_from_what_has_one_answer() -> None:
    found = dict(questions("a red dog at the top left and two blue cats and a bus ; the sign says STOP"))
    assert found == {
        "What does the sign say?": "STOP",
        "What color is the dog?": "red",
        "How many blue cats are there?": "2",
        "Where is the red dog?": "top left",
    }
    two = dict(questions("a red dog and a blue dog ; the top sign says AB ; the bottom sign says CD"))
    assert two == {"What does the top sign say?": "AB", "What does the bottom sign say?": "CD"}
    assert dict(questions("a white bus with number 42")) == {
        "What number is on the white bus?": "42",
        "What color is the bus?": "white",
    }
    assert list(questions("a nice picture")) == []


def test_questions_become_child_rows_with_turns(ctx: Any, batch: Any) -> None:
    rows = batch([CAPTION.format("the sign says STOP"), CAPTION.format("nothing")], images=[["0.png"], ["1.png"]])
    made = QaFromCaptionGenerator(hint="").make(rows, ctx)
    assert made.source.tolist() == [0, 0, 1] and made.is_child.tolist() == [False, True, False]
    assert made.batch.column("text").to_pylist()[1] == (
        "[[human]]: <image>\nWhat does the sign say?\n[[gpt]]: STOP <|__dj__eoc|>"
    )
    alone = QaFromCaptionGenerator(keep_original_sample=False).make(rows, ctx)
    assert alone.source.tolist() == [0, 1] and alone.is_child.tolist() == [True, False]
    assert QaFromCaptionGenerator.track == "open"


def test_custom_patterns() -> None:
    assert CleanLinksMapper(pattern="r'a(b)c'", repl=r"\1").rewrite("xabcx") == "xbx"
    with pytest.raises(ValueError, match="regular expression"):
        CleanLinksMapper(pattern="(").check()
