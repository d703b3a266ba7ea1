"""Compositional checks of generated pictures, in the manner of GenEval: prompts with known content, exact answers.

Prompts are captions of the demo world in combinations that only its evaluation side uses, and a rule-based reader says
what the pictures show, so no model judges another. Source of the categories: Ghosh et al. 2023, arXiv:2310.11513.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.seed import generator
from bettersynth.demo.world.facts import Facts, judge, parse
from bettersynth.demo.world.language import POSITIONS, article, plural
from bettersynth.demo.world.reader import Reading, read
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB, NUMBER_WORDS, Vocabulary
from bettersynth.eval.intervals import wilson

NEEDED: dict[str, tuple[str, ...]] = {
    "single": ("object", "colour"),
    "two": ("object", "colour"),
    "counting": ("object", "colour", "count"),
    "position": ("object", "colour", "position"),
    "text": ("object", "colour", "text"),
}
"""Categories, and the parts that have to be true for a picture to be right. Further things do not make it wrong
(as in GenEval), except where things are counted."""
VOCABULARIES = {"eval": EVAL_VOCAB, "base": BASE_VOCAB}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of one category; what it asks for stands in its text."""

    id: str
    category: str
    text: str

    @property
    def facts(self) -> Facts:
        """What the picture has to show."""
        return parse(self.text)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a picture fared: true and false parts, whether it is right, and whether it shows nothing else besides."""

    prompt: Prompt
    parts: Mapping[str, bool]
    is_right: bool
    is_exact: bool
    reading: Reading


def draw_prompts(per_category: int, *, seed: int = 0, vocabulary: str = "eval") -> list[Prompt]:
    """So many prompts of each category, without repetition as far as the world allows.

    Args:
        per_category: 50 give 250 prompts.
        seed: which ones.
        vocabulary: ``eval`` for combinations that are held out from ``base``.

    Raises:
        DataError: unknown vocabulary.
    """
    if vocabulary not in VOCABULARIES:
        expected = t("one of: {names}", names=", ".join(VOCABULARIES))
        raise DataError(t("unsupported value"), where="vocabulary", got=vocabulary, expected=expected)
    vocab, prompts = VOCABULARIES[vocabulary], []
    for category in NEEDED:
        rng: random.Random = generator(seed, "demo-world", "composition", vocabulary, category)
        texts: dict[str, None] = {}
        for _ in range(100 * per_category):
            texts.setdefault(_text(category, vocab, rng))
            if len(texts) == per_category:
                break
        chosen = list(texts)
        while len(chosen) < per_category:  # fewer single objects exist than were asked for
            chosen.append(rng.choice(list(texts)))
        prompts += [Prompt(f"{category}-{n:04d}", category, text) for n, text in enumerate(chosen)]
    return prompts


def _text(category: str, vocab: Vocabulary, rng: random.Random) -> str:
    colour, kind = rng.choice(vocab.combos)
    first = f"{article(colour)} {colour} {kind}"
    if category == "single":
        return first
    if category == "counting":
        return f"{NUMBER_WORDS[rng.randint(2, 4)]} {colour} {plural(kind)}"
    if category == "position":
        return f"{first} at the {rng.choice(list(POSITIONS.values()))}"
    if category == "text":
        return f"{first} ; the sign says {vocab.draw_word(rng)}"
    while True:
        other_colour, other_kind = rng.choice(vocab.combos)
        if other_kind != kind and other_colour != colour:
            return f"{first} and {article(other_colour)} {other_colour} {other_kind}"


def check(prompt: Prompt, picture: Image.Image | Reading) -> Verdict:
    """Whether a picture shows what its prompt asks for."""
    reading = read(picture) if isinstance(picture, Image.Image) else picture
    parts = judge(prompt.facts, reading)
    is_right = all(parts.get(name, False) for name in NEEDED[prompt.category])
    counts = sum(group.count for group in prompt.facts.groups) == len(reading.things)
    is_exact = is_right and parts["right"] and counts and len(reading.signs) == len(prompt.facts.words)
    return Verdict(prompt, parts, is_right, is_exact, reading)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of pictures with Wilson's 95 % interval, all 0-1, and how many there were."""

    right: int
    of: int

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval."""
        return wilson(self.value, self.of) if self.of else (0.0, 1.0)


def summary(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Share]]:
    """Shares by category (and ``all``, every prompt alike; ``mean`` of GenEval is the mean over categories).

    Each row has ``right``, ``exact`` and the single parts that its prompts speak of.
    """
    rows: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        rows.setdefault(verdict.prompt.category, []).append(verdict)
    if verdicts:
        rows["all"] = list(verdicts)
    table: dict[str, dict[str, Share]] = {}
    for name, members in rows.items():
        table[name] = {
            "right": Share(sum(v.is_right for v in members), len(members)),
            "exact": Share(sum(v.is_exact for v in members), len(members)),
        }
        for part in ("object", "colour", "count", "position", "text"):
            told = [v.parts[part] for v in members if part in v.parts]
            table[name][part] = Share(sum(told), len(told))
    return table


def overall(table: Mapping[str, Mapping[str, Share]]) -> float:
    """GenEval's one number: the mean of the categories' shares."""
    shares = [row["right"].value for name, row in table.items() if name != "all"]
    return sum(shares) / len(shares) if shares else 0.0


def prompt_of(name: str, text: str) -> Prompt:
    """A prompt from its id (``CATEGORY-NUMBER``, perhaps with more behind) and text.

    Raises:
        DataError: the id names no category, or the text asks for nothing that can be checked.
    """
    category = name.partition("-")[0]
    prompt = Prompt(name, category, text)
    if category not in NEEDED or not prompt.facts.groups:
        raise DataError(
            t("not a prompt of the compositional check"),
            where=name,
            got=text,
            hint=t("draw them with: {command}", command="bettersynth metrics prompts"),
        )
    return prompt
