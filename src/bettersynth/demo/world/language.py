"""Everything the demo world can say about a scene: captions, questions with answers, multiple choice.

All text is lower case apart from words read from signs. Answers are a word, a colour, a position, a number
or a sign's word. Every function is a pure function of its arguments and the given random generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from bettersynth.demo.world.scene import Scene, Thing, patch_words, sample_scene
from bettersynth.demo.world.vocab import (
    BACKGROUNDS,
    BASE_VOCAB,
    COLOURS,
    EVAL_VOCAB,
    KINDS,
    NUMBER_WORDS,
    Vocabulary,
)

SHORT_ANSWER_HINT = "Answer the question using a single word or phrase."
LETTER_HINT = "Answer with the option's letter from the given choices directly."
OPTION_LETTERS = "ABCD"

POSITIONS = {
    (0, 0): "top left",
    (0, 1): "top",
    (0, 2): "top right",
    (1, 0): "left",
    (1, 1): "middle",
    (1, 2): "right",
    (2, 0): "bottom left",
    (2, 1): "bottom",
    (2, 2): "bottom right",
}
ROW_NAMES = ("top", "middle", "bottom")
PLACES = {
    "beach": "on a beach",
    "forest": "in a forest",
    "snow": "in the snow",
    "night": "at night",
    "street": "on a street",
    "room": "in a room",
}
RELATIONS = ("left", "right", "above", "below")
MAX_CAPTION_WORDS = 25
_FREE_ORDER_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene and its answer; with `options` it is multiple choice.

    Attributes:
        kind: one of `QUESTION_KINDS`.
        text: the bare question.
        answer: the true answer in words.
        options: four option texts for multiple choice, else empty.
    """

    kind: str
    text: str
    answer: str
    options: tuple[str, ...] = ()

    @property
    def letter(self) -> str:
        """Letter of the right option ("" for an open question)."""
        return OPTION_LETTERS[self.options.index(self.answer)] if self.options else ""

    @property
    def target(self) -> str:
        """What a model should reply: the letter if there are options, else the answer."""
        return self.letter or self.answer

    def prompt(self) -> str:
        """Question, options one a line, and the format hint, as the instruction data ask it."""
        if not self.options:
            return f"{self.text}\n{SHORT_ANSWER_HINT}"
        lines = [f"{letter}. {option}" for letter, option in zip(OPTION_LETTERS, self.options, strict=True)]
        return "\n".join([self.text, *lines, LETTER_HINT])


def plural(kind: str) -> str:
    """English plural of an object kind."""
    return kind + "s"


def article(word: str) -> str:
    """ "a" or "an" for the next word."""
    return "an" if word[0] in "aeiou" else "a"


# --- captions ---------------------------------------------------------------------------------------------


def caption(scene: Scene, rng: random.Random) -> str:
    """A clean caption in web style: objects, some positions, place, what the signs say. At most 25 words."""
    groups = list(scene.groups())
    if rng.random() < _FREE_ORDER_SHARE:
        rng.shuffle(groups)  # else as read: row by row, left to right
    with_positions = len(groups) <= 2
    objects = " and ".join(_group_phrase(group, with_positions) for group in groups)
    if rng.random() < 0.3:
        objects = rng.choice(("a photo of", "there is", "we see")) + " " + objects
    if rng.random() < 0.5:
        place = PLACES[scene.background]
        objects = rng.choice((f"{objects} {place}", f"{place} {objects}"))
    signs = [_sign_phrase(scene, index, rng) for index in range(len(scene.signs))]
    parts = [*signs, objects] if rng.random() < 0.3 else [objects, *signs]
    text = " ; ".join(parts)
    if len(text.split()) > MAX_CAPTION_WORDS:
        bare = " and ".join(_group_phrase(group, False, False) for group in groups)
        text = " ; ".join([bare, *signs])
    return text


def _group_phrase(group: tuple[Thing, ...], with_position: bool, with_number: bool = True) -> str:
    first = group[0]
    if len(group) > 1:
        return f"{NUMBER_WORDS[len(group)]} {first.colour} {plural(first.kind)}"
    phrase = f"{article(first.colour)} {first.colour} {first.kind}"
    if with_number and first.number is not None:
        phrase += f" with number {first.number}"
    if with_position:
        phrase += f" at the {POSITIONS[first.cell]}"
    return phrase


def _sign_phrase(scene: Scene, index: int, rng: random.Random) -> str:
    sign = scene.signs[index]
    if len(scene.signs) > 1:
        return f"the {_sign_name(scene, index)} says {sign.word}"
    return rng.choice(
        (f"the sign says {sign.word}", f"a sign that reads {sign.word}", f"the word {sign.word} on a sign")
    )


def _sign_name(scene: Scene, index: int) -> str:
    """ "top sign", "middle sign" or "bottom sign"."""
    return f"{ROW_NAMES[scene.signs[index].row]} sign"


# --- questions --------------------------------------------------------------------------------------------


def _ask_sign(scene: Scene, rng: random.Random) -> Question | None:
    if not scene.signs:
        return None
    index = rng.randrange(len(scene.signs))
    name = "sign" if len(scene.signs) == 1 else _sign_name(scene, index)
    text = rng.choice((f"What does the {name} say?", f"What word is on the {name}?", f"What is written on the {name}?"))
    return Question("sign", text, scene.signs[index].word)


def _ask_number(scene: Scene, rng: random.Random) -> Question | None:
    found = [thing for thing in _unique_kinds(scene) if thing.number is not None]
    if not found:
        return None
    thing = rng.choice(found)
    text = rng.choice((f"What number is on the {thing.kind}?", f"What is the number of the {thing.kind}?"))
    return Question("number", text, str(thing.number))


def _ask_colour(scene: Scene, rng: random.Random) -> Question | None:
    found = _unique_kinds(scene)
    if not found:
        return None
    thing = rng.choice(found)
    text = rng.choice((f"What color is the {thing.kind}?", f"What is the color of the {thing.kind}?"))
    return Question("colour", text, thing.colour)


def _ask_kind(scene: Scene, rng: random.Random) -> Question | None:
    thing = rng.choice(scene.things)
    same_colour = [other for other in scene.things if other.colour == thing.colour]
    if len(same_colour) == 1 and rng.random() < 0.5:
        return Question("kind", f"Which object is {thing.colour}?", thing.kind)
    return Question("kind", f"What is at the {POSITIONS[thing.cell]}?", thing.kind)


def _ask_position(scene: Scene, rng: random.Random) -> Question | None:
    found = _unique_kinds(scene)
    if not found:
        return None
    thing = rng.choice(found)
    return Question("position", f"Where is the {thing.kind}?", POSITIONS[thing.cell])


def _ask_count(scene: Scene, rng: random.Random) -> Question | None:
    if rng.random() < 0.5:
        return Question("count", "How many objects are there?", NUMBER_WORDS[len(scene.things)])
    # Draw among the counts present, not among objects: else nearly all answers would be "one".
    counts = {kind: len(scene.of_kind(kind)) for kind in KINDS if scene.of_kind(kind)}
    size = rng.choice(sorted(set(counts.values())))
    kind = rng.choice([kind for kind, count in counts.items() if count == size])
    return Question("count", f"How many {plural(kind)} are there?", NUMBER_WORDS[size])


def _ask_relation(scene: Scene, rng: random.Random) -> Question | None:
    pairs = []
    for first in _unique_kinds(scene):
        for second in _unique_kinds(scene):
            direction = _direction(first.cell, second.cell)
            if direction is not None:
                pairs.append((first.kind, second.kind, direction))
    if not pairs:
        return None
    direction = rng.choice(sorted({pair[2] for pair in pairs}))
    first_kind, second_kind, _ = rng.choice([pair for pair in pairs if pair[2] == direction])
    return Question("relation", f"Where is the {first_kind} relative to the {second_kind}?", direction)


def _ask_scene(scene: Scene, rng: random.Random) -> Question | None:
    text = rng.choice(("Where was this picture taken?", "What is the background of the picture?"))
    return Question("scene", text, scene.background)


def _direction(first: tuple[int, int], second: tuple[int, int]) -> str | None:
    """Where `first` lies seen from `second` when they share a row or a column, else None."""
    if first == second:
        return None
    if first[0] == second[0]:
        return "left" if first[1] < second[1] else "right"
    if first[1] == second[1]:
        return "above" if first[0] < second[0] else "below"
    return None


def _unique_kinds(scene: Scene) -> list[Thing]:
    return [thing for thing in scene.things if len(scene.of_kind(thing.kind)) == 1]


_ASK: dict[str, Callable[[Scene, random.Random], Question | None]] = {
    "sign": _ask_sign,
    "number": _ask_number,
    "colour": _ask_colour,
    "kind": _ask_kind,
    "position": _ask_position,
    "count": _ask_count,
    "relation": _ask_relation,
    "scene": _ask_scene,
}
QUESTION_KINDS = tuple(_ASK)


def ask(scene: Scene, kind: str, rng: random.Random) -> Question | None:
    """An open question of one kind, or None where the scene does not allow it."""
    return _ASK[kind](scene, rng)


def ask_any(scene: Scene, rng: random.Random, weights: dict[str, float] | None = None) -> Question:
    """An open question of a random kind that the scene allows (there is always one).

    Args:
        scene: what to ask about.
        rng: source of randomness.
        weights: relative weight of each kind; all kinds alike by default.
    """
    kinds = list(weights) if weights else list(QUESTION_KINDS)
    left = {kind: weights[kind] if weights else 1.0 for kind in kinds}
    while left:
        kind = rng.choices(list(left), list(left.values()))[0]
        question = ask(scene, kind, rng)
        if question is not None:
            return question
        del left[kind]
    return _ASK["count"](scene, rng) or Question("scene", "Where was this picture taken?", scene.background)


def with_options(
    question: Question, scene: Scene, vocab: Vocabulary, rng: random.Random, letter: str | None = None
) -> Question:
    """Turn an open question into multiple choice with four options.

    Wrong options are of the answer's own kind; things that are in the picture come first, so that
    knowing what is present is not enough.

    Args:
        question: the open question.
        scene: its scene.
        vocab: where wrong sign words come from.
        rng: source of randomness.
        letter: put the right answer at this letter; drawn at random by default.
    """
    wrong = _wrong_answers(question, scene, vocab, rng)[: len(OPTION_LETTERS) - 1]
    rng.shuffle(wrong)
    place = OPTION_LETTERS.index(letter) if letter else rng.randrange(len(OPTION_LETTERS))
    wrong.insert(place, question.answer)
    return replace(question, options=tuple(wrong))


def _wrong_answers(question: Question, scene: Scene, vocab: Vocabulary, rng: random.Random) -> list[str]:
    present: list[str] = []
    pool: list[str]
    if question.kind == "sign":
        present = [sign.word for sign in scene.signs]
        same_length = [word for word in vocab.words if len(word) == len(question.answer)]
        pool = rng.sample(same_length, min(2, len(same_length))) + rng.sample(list(vocab.words), 5)
    elif question.kind == "number":
        present = [str(thing.number) for thing in scene.things if thing.number is not None]
        tens, ones = question.answer
        near = [tens + rng.choice("0123456789"), rng.choice("123456789") + ones]
        pool = near + [str(rng.randint(10, 99)) for _ in range(20)]
    elif question.kind == "colour":
        present = [thing.colour for thing in scene.things]
        pool = rng.sample(COLOURS, len(COLOURS))
    elif question.kind == "kind":
        present = [thing.kind for thing in scene.things]
        pool = rng.sample(KINDS, len(KINDS))
    elif question.kind == "position":
        present = [POSITIONS[thing.cell] for thing in scene.things]
        pool = rng.sample(list(POSITIONS.values()), len(POSITIONS))
    elif question.kind == "count":
        pool = list(NUMBER_WORDS[1:])
    elif question.kind == "relation":
        pool = list(RELATIONS)
    else:
        pool = rng.sample(BACKGROUNDS, len(BACKGROUNDS))
    rng.shuffle(present)
    ordered = dict.fromkeys([*present, *pool])
    ordered.pop(question.answer, None)
    return list(ordered)


def vocabulary_words() -> list[str]:
    """Every lower-case word, digit and mark that clean captions, questions and options use, sorted."""
    found: set[str] = set()
    rng = random.Random(0)
    fixed = " ".join([SHORT_ANSWER_HINT, LETTER_HINT, *POSITIONS.values(), *ROW_NAMES, *NUMBER_WORDS, *RELATIONS])
    texts = [fixed, *PLACES.values(), *BACKGROUNDS, *COLOURS, *KINDS, *map(plural, KINDS)]
    for vocab in (BASE_VOCAB, EVAL_VOCAB):
        for _ in range(1500):
            scene = sample_scene(rng, vocab)
            texts.append(caption(scene, rng))
            texts += [q.text for kind in QUESTION_KINDS if (q := ask(scene, kind, rng))]
            texts += [word for words in patch_words(scene) for word in words]
    for text in texts:
        for word in text.replace("?", " ? ").replace(".", " . ").replace(",", " , ").replace("'", " ' ").split():
            found.update([word] if not (word.isupper() or word.isdigit()) else word)
    return sorted(found)
