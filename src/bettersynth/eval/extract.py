"""Which option a free answer means.

Source: the inference rules of VLMEvalKit's CircularEval without its third step, a judge model ("exact matching").
"""

from __future__ import annotations

from collections.abc import Mapping

_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def infer_letter(answer: str, options: Mapping[str, str]) -> str:
    """The option letter of an answer, or an empty string when none can be told.

    (a) exactly one option letter stands in it as a word; else (b) exactly one option text is contained in it, case
    ignored. An answer that names two letters is not decided by (a).

    Args:
        answer: what the model wrote.
        options: letter to option text.

    >>> [infer_letter(a, {"A": "cat", "B": "dog"}) for a in ("B.", "(A) cat", "A or B", "it is a DOG", "cow")]
    ['B', 'A', '', 'B', '']
    """
    words = set(answer.translate(_SEPARATORS).split())
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1:
        return letters[0]
    lowered = answer.lower()
    named = [letter for letter, text in options.items() if text.lower() in lowered]
    return named[0] if len(named) == 1 else ""


def exact_letter(answer: str) -> str:
    """The challenge kit's rule: the answer itself, nothing stripped; ``B.`` is not ``B``."""
    return answer
