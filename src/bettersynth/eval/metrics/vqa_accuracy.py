"""Soft accuracy of a short answer against ten annotators, as TextVQA's public evaluator (m4c) computes it.

Source: Singh et al. 2019, "Towards VQA Models That Can Read", section 5 (metric of VQA v2), and the normalisation of
the public m4c evaluator, whose quirks are kept on purpose: scores must stay comparable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.eval.metrics._m4c_words import ARTICLES, NUMBERS, contractions

DIRECTION = "higher"
RANGE = (0.0, 1.0)
SOURCE = "m4c evaluator of TextVQA; Singh et al. 2019, arXiv:1904.08920"

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# The original hands a regular-expression flag (32) to an argument that means "at most so many replacements".
_MAX_PERIODS = 32
_PERIOD = re.compile(r"\.(?!\d)")


@lru_cache(maxsize=1)
def _contractions() -> dict[str, str]:
    return contractions()


def normalise(answer: str) -> str:
    """The form in which two answers are compared.

    >>> normalise("The Cat's 3rd, dont!"), normalise("none"), normalise("St. Mary")
    ("cat 's 3rd don't", '0', 'st mary')
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = _strip_punctuation(text)
    words = (NUMBERS.get(word, word) for word in text.split())
    table = _contractions()
    return " ".join(table.get(word, word) for word in words if word not in ARTICLES)


def _strip_punctuation(text: str) -> str:
    """Delete a mark that touches a space somewhere in ``text``, replace it by a space otherwise; then drop periods."""
    kept = text
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if touches_space else " ")
    return _PERIOD.sub("", kept, count=_MAX_PERIODS)


def score(prediction: str, reference: Sequence[str]) -> float:
    """Agreement with the annotators, in 0-1: mean over leaving each one out of ``min(1, matches / 3)``.

    With ten annotators, 0, 1, 2, 3 and at least 4 equal answers give 0, 0.3, 0.6, 0.9 and 1.

    Raises:
        DataError: when there is no reference answer.

    >>> score("stop", ["STOP", "stop.", "go", "go", "go", "go", "go", "go", "go", "go"])
    0.6
    """
    if not reference:
        raise DataError(t("a question has no reference answer"), expected=t("ten answers"))
    wanted = normalise(prediction)
    return agreement(sum(normalise(answer) == wanted for answer in reference), len(reference))


def agreement(matches: int, annotators: int) -> float:
    """Closed form of the leave-one-out mean; ``matches`` of ``annotators`` gave the predicted answer.

    >>> [agreement(c, 10) for c in range(5)]
    [0.0, 0.3, 0.6, 0.9, 1.0]
    """
    left_match = matches * min(3, matches - 1)  # leaving out one that agrees
    left_other = (annotators - matches) * min(3, matches)
    return (left_match + left_other) / (3 * annotators) if matches else 0.0
