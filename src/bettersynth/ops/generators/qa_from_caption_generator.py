"""Make question-answer rows from what captions say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.core.sample import LLAVA_IMAGE
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import IMAGES, TEXT, Batch, Generator, Made, Track, row_keys, with_column

_COLOURS = "red|green|blue|yellow|orange|purple|white|black|brown|pink|gray|grey"
_NOUN = rf"(?P<noun>(?!(?:{_COLOURS})\b)[a-z]+)"
_NUMBERS = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_SIGN = re.compile(
    r"(?:the )?(?:(?P<row>top|middle|bottom) )?sign (?:that )?(?:says|reads) (?P<a>[A-Z][A-Z0-9]*)"
    r"|the word (?P<b>[A-Z][A-Z0-9]*) on a sign"
)
_PLATE = re.compile(rf"(?P<colour>{_COLOURS}) {_NOUN} with number (?P<number>\d+)")
_ONE = re.compile(rf"\ban? (?P<colour>{_COLOURS}) {_NOUN}")
_MANY = re.compile(rf"\b(?P<count>{'|'.join(_NUMBERS)}) (?P<colour>{_COLOURS}) {_NOUN}")
_AT = re.compile(
    rf"(?P<colour>{_COLOURS}) {_NOUN}(?: with number \d+)? at the "
    r"(?P<place>top left|top right|bottom left|bottom right|top|bottom|left|right|middle)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QaFromCaptionGenerator(Generator):
    """Child rows with one question about a fact of the caption and its short answer, by rules (ours; open track).

    Facts: words on signs, numbers, colours, counts, places. A colour or place is asked only when the caption names
    one thing of that kind, so that the question has one answer. Child texts are ``[[human]]: ... [[gpt]]: ...`` turns.

    Args:
        max_questions: most children per row, drawn by the row's seed.
        hint: sentence after each question.
        keep_original_sample: whether the caption row stays.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, IMAGES)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)
    track: ClassVar[Track] = "open"

    max_questions: int = 2
    hint: str = "Answer the question using a single word or phrase."
    keep_original_sample: bool = True

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """Originals and their questions, ordered by source."""
        source: list[int] = []
        is_child: list[bool] = []
        out: list[str] = []
        texts, images, keys = batch.column(TEXT).to_pylist(), batch.column(IMAGES).to_pylist(), row_keys(batch)
        for row, text in enumerate(texts):
            single = len(images[row] or ()) == 1 and ctx.tokens.num_images(text) == 1
            facts = list(dict.fromkeys(questions(ctx.tokens.strip(text)))) if single else []
            chosen = ctx.generator(self.name, keys[row]).sample(facts, min(self.max_questions, len(facts)))
            if self.keep_original_sample or not chosen:
                source.append(row)
                is_child.append(False)
                out.append(text)
            for question, answer in chosen:
                source.append(row)
                is_child.append(True)
                ask = f"{question}\n{self.hint}" if self.hint else question
                out.append(f"[[human]]: {LLAVA_IMAGE}\n{ask}\n[[gpt]]: {answer} {ctx.tokens.eoc}")
        made = with_column(batch.take(pa.array(source, pa.int64())), TEXT, pa.array(out, pa.string()))
        return Made(made, np.array(source, np.int64), np.array(is_child, bool))


def questions(caption: str) -> Iterator[tuple[str, str]]:
    """(question, answer) pairs that the caption's own words settle.

    >>> list(questions("a red dog at the top left ; the sign says STOP"))[:2]
    [('What does the sign say?', 'STOP'), ('What color is the dog?', 'red')]
    """
    signs = list(_SIGN.finditer(caption))
    for match in signs:
        word = match["a"] or match["b"]
        if len(signs) == 1:
            yield "What does the sign say?", word
        elif match["row"]:
            yield f"What does the {match['row']} sign say?", word
    for match in _PLATE.finditer(caption):
        yield f"What number is on the {match['colour']} {match['noun']}?", match["number"]
    singles = list(_ONE.finditer(caption))
    nouns = [match["noun"] for match in singles] + [
        match["noun"].removesuffix("s") for match in _MANY.finditer(caption)
    ]
    for match in singles:
        if nouns.count(match["noun"]) == 1:
            yield f"What color is the {match['noun']}?", match["colour"]
    for match in _MANY.finditer(caption):
        yield f"How many {match['colour']} {match['noun']} are there?", _NUMBERS[match["count"]]
    for match in _AT.finditer(caption):
        yield f"Where is the {match['colour']} {match['noun']}?", match["place"]
