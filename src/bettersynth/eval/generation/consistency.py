"""Do text and picture agree: CLIP score, caption-back agreement, and questions whose answers the prompt gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.infer.protocols import ChatModel, ChatRequest, Decoding, ImageTextScorer

_STOP_TEXT = "a an the of in on at to and or with is are was were be there this that it its image picture photo we see"
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def clip_score(images: Sequence[Image.Image], texts: Sequence[str], scorer: ImageTextScorer) -> np.ndarray:
    """(N,) CLIP score of each pair, 0-100: 100 * max(cosine, 0). Source: Hessel et al. 2021, arXiv:2104.08718, w = 1.

    Raises:
        DataError: not one text per picture.
    """
    _check(len(images), len(texts))
    cosines = (scorer.embed_images(list(images)) * scorer.embed_texts(list(texts))).sum(1)
    return 100.0 * np.clip(np.asarray(cosines, dtype=np.float64), 0.0, None)


def _check(pictures: int, texts: int) -> None:
    if pictures != texts or not pictures:
        raise DataError(t("not one text per picture"), got=f"{pictures} / {texts}", expected="N / N")


def content_words(text: str) -> Counter[str]:
    """Words that carry content: letters and digits, lower case, a plain plural's s dropped, no function words.

    >>> sorted(content_words("Two red Balls on the table"))
    ['ball', 'red', 'table', 'two']
    """
    words = (word for word in re.findall(r"\w+", text.lower()) if word not in _STOP_WORDS)
    return Counter(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a text that a model wrote for a picture says what the prompt said; all 0-1.

    Attributes:
        precision: share of the caption's content words that the prompt has; recall: the other way round.
        f1: their harmonic mean.
        similarity: cosine of both texts by a scorer; None without one.
    """

    precision: float
    recall: float
    f1: float
    similarity: float | None = None


def word_agreement(prompt: str, caption: str) -> Agreement:
    """Overlap of content words, counted with multiplicity; two empty texts agree.

    >>> word_agreement("a red ball and a blue cup", "there is a red ball")
    Agreement(precision=1.0, recall=0.5, f1=0.6666666666666666, similarity=None)
    """
    wanted, got = content_words(prompt), content_words(caption)
    if not wanted or not got:
        same = float(not wanted and not got)
        return Agreement(same, same, same)
    common = (wanted & got).total()
    precision, recall = common / got.total(), common / wanted.total()
    return Agreement(precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)


def caption_back(
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    describe: Callable[[Sequence[Image.Image]], Sequence[str]],
    scorer: ImageTextScorer | None = None,
) -> tuple[list[str], list[Agreement]]:
    """Describe generated pictures and compare with what was asked for.

    Args:
        images: generated pictures.
        prompts: what each was asked to show.
        describe: pictures to captions: a captioner's ``caption``, or the generating model itself.
        scorer: adds the cosine of prompt and caption.

    Returns:
        The captions and one agreement per picture.
    """
    _check(len(images), len(prompts))
    captions = list(describe(images))
    found = [word_agreement(prompt, caption) for prompt, caption in zip(prompts, captions, strict=True)]
    if scorer is not None:
        cosines = (scorer.embed_texts(list(prompts)) * scorer.embed_texts(captions)).sum(1)
        found = [Agreement(a.precision, a.recall, a.f1, float(c)) for a, c in zip(found, cosines, strict=True)]
    return captions, found


@dataclass(frozen=True, slots=True)
class Check:
    """A question about a generated picture and the answer that its prompt implies."""

    picture: int
    question: str
    answer: str


def vqa_agreement(
    images: Sequence[bytes], checks: Sequence[Check], model: ChatModel, *, max_new_tokens: int = 16
) -> list[bool]:
    """Whether a model that sees each picture answers as its prompt implies.

    An answer is right if the expected words stand in it side by side, case and punctuation aside.

    Args:
        images: encoded pictures (PNG bytes).
        checks: what to ask of which.
        model: answers.
        max_new_tokens: longest answer.
    """
    requests = [ChatRequest(str(n), check.question, images[check.picture]) for n, check in enumerate(checks)]
    answers = model.generate(requests, Decoding(max_new_tokens=max_new_tokens))
    return [_holds(answer.text, check.answer) for answer, check in zip(answers, checks, strict=True)]


def _holds(answer: str, wanted: str) -> bool:
    words, parts = (re.findall(r"\w+", text.lower()) for text in (answer, wanted))
    return any(words[i : i + len(parts)] == parts for i in range(len(words) - len(parts) + 1))
