"""Make question-answer rows from what any English text says about things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.core.sample import LLAVA_IMAGE
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_facts import Relation, things_and_relations
from bettersynth.ops.base import TEXT, Batch, Generator, Made, Track, row_keys, with_column

_PLACES = (
    "on",
    "in",
    "at",
    "under",
    "over",
    "near",
    "beside",
    "behind",
    "above",
    "below",
    "beneath",
    "inside",
    "outside",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QaFromTextGenerator(Generator):
    """Child rows with one question about things and how they relate, and its answer from the text, by rules (ours).

    ``a man riding a brown horse`` gives "What is the man riding?" - "a brown horse". Only things named once are asked
    about. Child texts are ``[[human]]: ... [[gpt]]: ...`` turns, with the image token where the row has one picture.

    Args:
        max_questions: most children per row, drawn by the row's seed.
        hint: sentence after each question.
        keep_original_sample: whether the source row stays; it does anyway when no question can be asked.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)
    track: ClassVar[Track] = "open"

    max_questions: int = 2
    hint: str = ""
    keep_original_sample: bool = True

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """Originals and their questions, ordered by source."""
        rows: list[tuple[int, bool, str]] = []
        for row, (text, key) in enumerate(zip(batch.column(TEXT).to_pylist(), row_keys(batch), strict=True)):
            num_images = ctx.tokens.num_images(text)
            facts = list(dict.fromkeys(text_questions(ctx.tokens.strip(text)))) if num_images <= 1 else []
            chosen = ctx.generator(self.name, key).sample(facts, min(self.max_questions, len(facts)))
            if self.keep_original_sample or not chosen:
                rows.append((row, False, text))
            for question, answer in chosen:
                ask = "\n".join(part for part in (LLAVA_IMAGE * num_images, question, self.hint) if part)
                rows.append((row, True, f"[[human]]: {ask}\n[[gpt]]: {answer} {ctx.tokens.eoc}"))
        source = np.array([row for row, _, _ in rows], np.int64)
        made = batch.take(pa.array(source, pa.int64()))
        made = with_column(made, TEXT, pa.array([text for _, _, text in rows], pa.string()))
        return Made(made, source, np.array([is_child for _, is_child, _ in rows], bool))


def text_questions(text: str) -> Iterator[tuple[str, str]]:
    """(question, answer) pairs that the text's own words settle.

    >>> list(text_questions("a man riding a brown horse on the beach"))
    [('What is the man riding?', 'brown horse')]
    """
    things, relations = things_and_relations(text)
    heads = Counter(thing.head for thing in things)
    # What follows a second thing may well be said of the first: "a man in a shirt holding a ball".
    told = {id(relation.right) for relation in relations}
    for relation in relations:
        if heads[relation.left.head] == 1 and not relation.left.number and id(relation.left) not in told:
            yield from _about(relation)
    for thing in things:
        if thing.number not in ("", "one", "several", "many", "few") and heads[thing.head] == 1:
            yield f"How many {thing.head} are there?", thing.number


def _about(relation: Relation) -> Iterator[tuple[str, str]]:
    words = relation.words.split()
    name, answer = relation.left.head, relation.right.phrase
    if relation.right.number:
        answer = f"{relation.right.number} {answer}"
    if words[0].endswith("ing") and len(words) <= 2 and words[-1] not in _PLACES:
        yield f"What is the {name} {' '.join(words)}?", answer
    elif words[-1] in _PLACES and len(words) <= 2:
        yield f"Where is the {name}?", f"{words[-1]} {answer if relation.right.number else 'the ' + answer}"
