"""Requests and answers the tiny language model is pre-trained on.

Beside the demo world's own captions and questions there are easier relatives of multiple choice (answer in
words although options are given; find the letter of a given text), since choosing a letter composes the two, and a few
exchanges that need no picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bettersynth.demo.world.language import (
    LETTER_HINT,
    OPTION_LETTERS,
    POSITIONS,
    RELATIONS,
    SHORT_ANSWER_HINT,
    Question,
    article,
    ask,
    ask_any,
    caption,
    plural,
    with_options,
)
from bettersynth.demo.world.scene import Scene
from bettersynth.demo.world.vocab import BACKGROUNDS, COLOURS, KINDS, LETTERS, NUMBER_WORDS, Vocabulary

OCR_PREFIX = "Reference OCR token: "
QUESTION_WEIGHTS = {
    "sign": 2.0,
    "number": 1.5,
    "colour": 1.2,
    "kind": 1.2,
    "position": 1.2,
    "count": 1.2,
    "relation": 1.2,
    "scene": 0.4,
}
HARD_QUESTION_WEIGHTS = {
    "sign": 1.8,
    "number": 4.0,
    "colour": 1.8,
    "kind": 1.4,
    "position": 1.0,
    "count": 1.0,
    "relation": 2.5,
    "scene": 0.3,
}

_VERBS = (
    "Describe",
    "Summarize",
    "Explain",
    "Caption",
    "Depict",
    "Give a caption for",
    "Give a description of",
    "Provide a brief description of",
    "Provide a short caption for",
    "Write a caption for",
    "Write a short description of",
    "Write a brief summary of",
    "Create a short description of",
    "Present a brief summary of",
    "Offer a short explanation of",
    "Share a concise description of",
    "Render a clear summary of",
    "Say what is in",
    "Tell me what you see in",
)
_OBJECTS = ("this", "this picture", "the picture", "the image", "this image", "the photo", "this photo", "the scene")
_MANNERS = ("", "", "", " briefly", " concisely", " in a few words", " in one sentence", " shortly", " clearly")
_LOOSE_WORDS = [
    "please",
    "look",
    "at",
    "the",
    "image",
    "picture",
    "photo",
    "and",
    "tell",
    "me",
    "about",
    "it",
    "what",
    "do",
    "you",
    "see",
    "here",
    "briefly",
    "short",
    "caption",
    "clear",
    "concise",
    "summary",
    "content",
    "visual",
    "main",
    "details",
    "details",
    "key",
    "features",
    "compact",
    "account",
    "given",
    "following",
    "subsequent",
    "provided",
    "presented",
    "shown",
    "simple",
    "text",
    "one",
    "sentence",
    "with",
    "for",
    "in",
    "of",
    "is",
    "can",
    "could",
]
_ODD_TEXT = """
shop stock price size home sale view free click online good great new nice more day key main text video brief clear
compact simple
"""
_ODD_WORDS = tuple(_ODD_TEXT.split())
_MIXES = {("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One user request and its answer.

    Attributes:
        task: under what name it is counted: "caption", "short/KIND", "ocr/KIND", "letter/KIND", ...
        prompt: text of the user turn after the image and its newline.
        answer: the reply.
        truth: the answer in words where it can be known at the prompt's first question mark, else "".
        num_options: options of multiple choice, one a line from the second line on.
        right: index of the right option.
    """

    task: str
    prompt: str
    answer: str
    truth: str = ""
    num_options: int = 0
    right: int = -1


def with_odd_words(scene: Scene, rng: random.Random) -> Scene:
    """The scene with some colours, and sometimes a kind, replaced by words that mean nothing there.

    Kinds come in few colours each, so a reader could learn the pairs by heart and would then be unable to say one
    that it never saw. "a size ball" and "a red stock" have to be read off the raster.
    """
    kinds = sorted({thing.kind for thing in scene.things})
    odd_kind = {kinds[0]: rng.choice(_ODD_WORDS)} if len(kinds) > 1 and rng.random() < 0.3 else {}
    words: dict[tuple[str, str], str] = {}
    for thing in scene.things:
        words.setdefault(thing.combo, rng.choice(_ODD_WORDS) if rng.random() < 0.7 else thing.colour)
    things = (
        replace(thing, kind=odd_kind.get(thing.kind, thing.kind), colour=words[thing.combo]) for thing in scene.things
    )
    return replace(scene, things=tuple(things))


def with_misread_text(scene: Scene, rng: random.Random) -> Scene:
    """The scene as eyes see it that cannot read: about half of the letters and digits are others.

    Where a raster shows this, the OCR tokens of the prompt are the better witness.
    """

    def misread(text: str, alphabet: str) -> str:
        return "".join(rng.choice(alphabet) if rng.random() < 0.5 else letter for letter in text)

    signs = tuple(replace(sign, word=misread(sign.word, LETTERS)) for sign in scene.signs)
    things = tuple(
        thing if thing.number is None else replace(thing, number=int(misread(str(thing.number), "123456789")))
        for thing in scene.things
    )
    return replace(scene, signs=signs, things=things)


Weights = dict[str, float]
"""Question kind -> relative weight."""
Maker = Callable[[Scene, Vocabulary, random.Random, Weights], Turn]


def caption_turn(scene: Scene, _vocab: Vocabulary, rng: random.Random, _weights: Weights) -> Turn:
    """An instruction to describe the picture, and a caption."""
    return Turn("caption", instruction(rng), caption(scene, rng))


def instruction(rng: random.Random) -> str:
    """A request to describe a picture; one in five only resembles one, so that wording does not matter."""
    if rng.random() < 0.2:
        words = rng.choices(_LOOSE_WORDS, k=rng.randint(2, 10))
        text = " ".join(words)
    else:
        text = f"{rng.choice(_VERBS)} {rng.choice(_OBJECTS)}{rng.choice(_MANNERS)}"
    return text + rng.choice((".", ".", ".", "", "?"))


def short_turn(scene: Scene, _vocab: Vocabulary, rng: random.Random, weights: Weights) -> Turn:
    """A question to be answered in a word or phrase, sometimes without the hint to do so."""
    question = ask_any(scene, rng, weights)
    prompt = question.text if rng.random() < 0.2 else question.prompt()
    return Turn(f"short/{question.kind}", prompt, question.answer, question.answer)


def bare_turn(scene: Scene, _vocab: Vocabulary, rng: random.Random, weights: Weights) -> Turn:
    """A question and its answer without any hint at the form: the cheapest way to learn to read a raster."""
    question = ask_any(scene, rng, weights)
    return Turn(f"bare/{question.kind}", question.text, question.answer, question.answer)


def ocr_turn(scene: Scene, _vocab: Vocabulary, rng: random.Random, weights: Weights) -> Turn:
    """A question with what an imperfect reader saw in the picture."""
    question = ask_any(scene, rng, {**weights, "sign": 5.0, "number": max(4.0, 2 * weights["number"])})
    prompt = f"{question.text}\n{OCR_PREFIX}{', '.join(ocr_tokens(scene, rng))}\n{SHORT_ANSWER_HINT}"
    return Turn(f"ocr/{question.kind}", prompt, question.answer, question.answer)


def witness_turn(scene: Scene, _vocab: Vocabulary, rng: random.Random, _weights: Weights) -> Turn:
    """A question about text that only the OCR tokens tell; with about other things where there is no text."""
    question = ask_any(scene, rng, {"sign": 5.0, "number": 4.0, "colour": 0.5, "kind": 0.5})
    prompt = f"{question.text}\n{OCR_PREFIX}{', '.join(ocr_tokens(scene, rng))}\n{SHORT_ANSWER_HINT}"
    return Turn(f"witness/{question.kind}", prompt, question.answer, question.answer)


def ocr_tokens(scene: Scene, rng: random.Random) -> list[str]:
    """Texts of the scene as a reader with errors gives them: some lost, some misread, some invented."""
    found = [sign.word for sign in scene.signs]
    found += [str(thing.number) for thing in scene.things if thing.number is not None]
    read = []
    for text in found:
        fate = rng.random()
        if fate < 0.15:
            continue
        if fate < 0.4:
            place = rng.randrange(len(text))
            alphabet = LETTERS if text.isalpha() else "0123456789"
            text = text[:place] + rng.choice(alphabet) + text[place + 1 :]
        read.append(text)
    if rng.random() < 0.2:
        read.append("".join(rng.choices(LETTERS, k=rng.randint(3, 6))))
    rng.shuffle(read)
    return read


def letter_turn(scene: Scene, vocab: Vocabulary, rng: random.Random, weights: Weights) -> Turn:
    """Multiple choice, answered by the letter."""
    question = _choice(scene, vocab, rng, weights)
    return _choice_turn(f"letter/{question.kind}", question, LETTER_HINT, question.letter)


def option_text_turn(scene: Scene, vocab: Vocabulary, rng: random.Random, weights: Weights) -> Turn:
    """Multiple choice, answered in words."""
    question = _choice(scene, vocab, rng, weights)
    return _choice_turn(f"option-text/{question.kind}", question, SHORT_ANSWER_HINT, question.answer)


def _choice(scene: Scene, vocab: Vocabulary, rng: random.Random, weights: Weights) -> Question:
    question = with_options(ask_any(scene, rng, weights), scene, vocab, rng)
    if rng.random() < 0.85:
        return question
    # Fewer options are rare in the benchmark, yet a reader should not depend on there being four.
    wrong = [option for option in question.options if option != question.answer]
    kept = [question.answer, *wrong[: rng.randint(1, 2)]]
    rng.shuffle(kept)
    return replace(question, options=tuple(kept))


def _choice_turn(task: str, question: Question, hint: str, answer: str) -> Turn:
    prompt = "\n".join([question.text, *_option_lines(question.options), hint])
    right = question.options.index(question.answer)
    return Turn(task, prompt, answer, question.answer, len(question.options), right)


def _option_lines(options: Sequence[str]) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(OPTION_LETTERS, options, strict=False)]


def find_letter_turn(vocab: Vocabulary, rng: random.Random, *, is_easy: bool = False) -> Turn:
    """Find the letter of a text that the request names itself: the second half of multiple choice.

    Args:
        vocab: where sign words come from.
        rng: source of randomness.
        is_easy: only options of one token.
    """
    options = rng.sample(rng.choice((COLOURS, KINDS, BACKGROUNDS)), 4) if is_easy else _some_options(vocab, rng)
    place = rng.randrange(len(options))
    head = rng.choice((f"The answer is {options[place]}.", f"Which option says {options[place]}?"))
    prompt = "\n".join([head, *_option_lines(options), LETTER_HINT])
    return Turn("find-letter", prompt, OPTION_LETTERS[place], "", len(options), place)


def _some_options(vocab: Vocabulary, rng: random.Random) -> list[str]:
    pools: tuple[tuple[str, ...], ...] = (
        COLOURS,
        KINDS,
        BACKGROUNDS,
        tuple(POSITIONS.values()),
        RELATIONS,
        NUMBER_WORDS[1:],
        tuple(str(rng.randint(10, 99)) for _ in range(8)),
        tuple(vocab.draw_word(rng) for _ in range(8)),
        tuple(vocab.draw_word(rng) for _ in range(8)),
    )
    pool = list(dict.fromkeys(rng.choice(pools)))
    return rng.sample(pool, min(4, len(pool)))


def yes_no_turn(scene: Scene, vocab: Vocabulary, rng: random.Random, _weights: Weights) -> Turn:
    """Whether something is in the picture; half of the answers are yes."""
    is_yes = rng.random() < 0.5
    present = {thing.combo for thing in scene.things}
    if rng.random() < 0.5:
        kinds = sorted({kind for _, kind in present})
        kind = rng.choice(kinds if is_yes else [kind for kind in KINDS if kind not in kinds])
        text = f"Is there {article(kind)} {kind}?"
    else:
        combos = sorted(present) if is_yes else [combo for combo in vocab.combos if combo not in present]
        colour, kind = rng.choice(combos)
        text = f"Is there {article(colour)} {colour} {kind}?"
    prompt = text if rng.random() < 0.3 else f"{text}\n{SHORT_ANSWER_HINT}"
    return Turn("yes-no", prompt, "yes" if is_yes else "no", "yes" if is_yes else "no")


def sentence_turn(scene: Scene, _vocab: Vocabulary, rng: random.Random, _weights: Weights) -> Turn:
    """A question with a whole sentence as its answer."""
    question = ask(scene, rng.choice(("colour", "position", "scene", "sign")), rng)
    if question is None:
        return caption_turn(scene, _vocab, rng, _weights)
    thing = question.text.rstrip("?").split()[-1]
    answer = {
        "colour": f"The {thing} is {question.answer}.",
        "position": f"The {thing} is at the {question.answer}.",
        "scene": f"The background is {question.answer}.",
        "sign": f"The sign says {question.answer}.",
    }[question.kind]
    return Turn("sentence", f"{question.text}\nAnswer in one sentence.", answer)


def plain_chat_turn(rng: random.Random) -> Turn:
    """An exchange that needs no picture: mixing colours, spelling, counting, greetings."""
    pick = rng.randrange(6)
    if pick == 0:
        (first, second), mixed = rng.choice(list(_MIXES.items()))
        if rng.random() < 0.5:
            first, second = second, first
        return Turn("chat", f"What color do {first} and {second} make?", mixed)
    if pick == 1:
        word = "".join(rng.choices(LETTERS, k=rng.randint(3, 6)))
        return Turn("chat", f"Repeat the word {word}.", word)
    if pick == 2:
        kind = rng.choice(KINDS)
        return Turn("chat", f"What is the plural of {kind}?", plural(kind))
    if pick == 3:
        number = rng.randrange(4)
        return Turn("chat", f"What number comes after {NUMBER_WORDS[number]}?", NUMBER_WORDS[number + 1])
    if pick == 4:
        return Turn("chat", rng.choice(("Hello.", "Hello!", "Hi.")), "Hello! How can I help you?")
    words = rng.sample([*COLOURS, *KINDS], 3)
    return Turn("chat", f"Repeat the words {', '.join(words)}.", ", ".join(words))


PICTURE_TURNS: dict[str, Maker] = {
    "caption": caption_turn,
    "short": short_turn,
    "bare": bare_turn,
    "ocr": ocr_turn,
    "witness": witness_turn,
    "letter": letter_turn,
    "option-text": option_text_turn,
    "find-letter": lambda _scene, vocab, rng, _weights: find_letter_turn(vocab, rng),
    "yes-no": yes_no_turn,
    "sentence": sentence_turn,
}


def extra_words() -> set[str]:
    """Words beyond the demo world's own that become tokens: those of the templates above and of web captions."""
    text = " ".join([*_VERBS, *_OBJECTS, *_MANNERS, *_LOOSE_WORDS, OCR_PREFIX, "Is Answer sentence yes no user model"])
    text += " Where Which What How Hello Hi can help you do make Repeat the words plural comes after The option says"
    text += (
        " answer Say Look There image images click here buy now free sale best online shop stock photo picture video"
    )
    text += " view new nice thing things some something it with by not all more size price day home good great good"
    return set(text.replace(",", " ").replace(".", " ").replace(":", " ").split())
