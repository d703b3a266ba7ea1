"""CLIP score, caption-back agreement and questions that a prompt answers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.eval.generation.consistency import (
    Check,
    caption_back,
    clip_score,
    content_words,
    vqa_agreement,
    word_agreement,
)
from bettersynth.infer.protocols import ChatResponse

PICTURES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "white")]


class _Scorer:
    digest = "plain"

    def embed_images(self, images):
        return np.array([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])[: len(images)]

    def embed_texts(self, texts):
        return np.array([[0.8, 0.6], [1.0, 0.0], [0.0, 1.0]])[: len(texts)]

    def score(self, images, texts):
        raise AssertionError("the logit scale has no place in a CLIP score")


def test_clip_score_is_the_cosine_without_negative_values():
    assert clip_score(PICTURES, ["a", "b", "c"], _Scorer()).tolist() == pytest.approx([80.0, 60.0, 0.0])
    with pytest.raises(DataError, match="not one text per picture"):
        clip_score(PICTURES, ["a"], _Scorer())


def test_clip_score_equals_transformers_own(tmp_path):
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    from bettersynth.demo.tour import weights_folder
    from bettersynth.infer.loader import load_scorer

    folder = weights_folder() / "clip-scorer-tiny"
    images = [Image.effect_noise((70, 60), 60).convert("RGB"), Image.new("RGB", (96, 96), "red")]
    texts = ["a red ball", "two blue cups at night"]
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    pixels = CLIPImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
    with torch.no_grad():
        out = model(**tokenizer(texts, return_tensors="pt", padding=True), **pixels)
    wanted = (out.image_embeds * out.text_embeds).sum(-1).clamp(min=0) * 100
    assert clip_score(images, texts, load_scorer(str(folder), device="cpu")) == pytest.approx(wanted.numpy(), abs=0.05)


def test_word_agreement():
    assert content_words("the glass, Two balls; STOP") == {"glass": 1, "two": 1, "ball": 1, "stop": 1}
    found = word_agreement("a red ball and a red cup", "two red cups in the snow")
    assert (found.precision, found.recall) == (2 / 4, 2 / 4)
    assert word_agreement("", "").f1 == 1.0 and word_agreement("ball", "").f1 == 0.0 == word_agreement("a", "b").f1


def test_caption_back():
    captions, found = caption_back(
        PICTURES, ["red", "red", "white"], lambda images: ["red", "blue", "white"], _Scorer()
    )
    assert captions == ["red", "blue", "white"] and [a.f1 for a in found] == [1.0, 0.0, 1.0]
    assert [a.similarity for a in found] == pytest.approx([1.0, 1.0, 1.0])


def test_questions():
    class Chat:
        digest = "chat"

        def generate(self, requests, decoding):
            answers = {"What color?": "It is Red.", "Where?": "top left corner", "How many?": "three hundred"}
            return [ChatResponse(request.key, answers[request.prompt]) for request in requests]

    checks = [Check(0, "What color?", "red"), Check(1, "Where?", "top left"), Check(1, "How many?", "two")]
    assert vqa_agreement([b"a", b"b"], checks, Chat()) == [True, True, False]
