"""Things and relations that an English caption names, found by word lists alone.

A caption is cut at function words, verbs and punctuation; what stands between is a thing, and the words between two
things of one sentence say how they relate. That is right for captions of the kind "a red dog on the grass" and wrong
for much else: it knows no grammar.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_LIST = {
    "article": "a an the this that these those some any each every another both all no",
    "number": "one two three four five six seven eight nine ten several many few",
    "own": "my your his her its our their whose",
    "preposition": (
        "on in at under over near beside behind above below beneath between inside outside around across against along "
        "with without from to into onto through by of off past toward towards next front top"
    ),
    "be": "is are was were be been being has have had can could will would there here it he she they who which am",
    "join": "and or but while as than then also so if because when where not very too",
}
_KIND = {word: kind for kind, text in _LIST.items() for word in text.split()}
_VERBS = frozenset(
    """holds wears sits stands rides eats drinks says reads shows plays walks runs looks watches flies lies leans hangs
    drives carries pulls pushes covers contains displays sit stand hold wear ride eat drink play walk run fly lie hang
    parked covered filled surrounded made dressed seated mounted topped held worn painted written""".split()  # noqa: SIM905
)
_ING_NOUNS = frozenset(
    """building ceiling wing ring string king evening morning painting clothing spring swing railing wedding parking
    crossing lighting siding awning pudding icing frosting earring thing something nothing anything""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|\d+|[^\w\s]")
_STOPS = re.compile(r"[.!?;:\n]+")


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing that is named.

    Args:
        head: its noun. phrase: noun with its adjectives. number: ``two`` and the like, or empty.
    """

    head: str
    phrase: str
    number: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """Two things and the words between them, e.g. ``sitting on``; the verb, if any, comes first."""

    left: Thing
    words: str
    right: Thing


def _is_verb(word: str) -> bool:
    return word in _VERBS or (len(word) > 4 and word.endswith("ing") and word not in _ING_NOUNS)


def things_and_relations(text: str) -> tuple[list[Thing], list[Relation]]:
    """All things in order, and the relations between neighbours.

    >>> things, relations = things_and_relations("A red dog sitting on the grass.")
    >>> [thing.phrase for thing in things], relations[0].words
    (['red dog', 'grass'], 'sitting on')
    """
    things: list[Thing] = []
    relations: list[Relation] = []
    for sentence in _STOPS.split(text):
        before: Thing | None = None
        between: list[str] = []
        number, words = "", []
        for word in (*_WORD.findall(sentence), ","):
            low = word.lower()
            kind = _KIND.get(low, "verb" if _is_verb(low) else "mark" if not word[0].isalpha() else "")
            if not kind:
                words.append(word if word.isupper() and len(word) > 1 else low)
                continue
            if words:
                thing = Thing(words[-1], " ".join(words), number)
                things.append(thing)
                if before is not None and between:
                    relations.append(Relation(before, " ".join(between), thing))
                before, between, words, number = thing, [], [], ""
            if kind == "number":
                number = low
            elif kind in ("preposition", "verb"):
                between.append(low)
            elif kind in ("join", "mark"):
                before, between = (None, []) if kind == "mark" else (before, [])
    return things, relations


def keywords(text: str, count: int) -> list[str]:
    """The phrases whose words stand in the longest phrases, best first (RAKE).

    Source: Rose et al., Automatic keyword extraction from individual documents, 2010: score of a word = degree over
    frequency, of a phrase = sum over its words; ties in order of appearance.
    """
    phrases = list(dict.fromkeys(thing.phrase for thing in things_and_relations(text)[0]))
    frequency: Counter[str] = Counter()
    degree: Counter[str] = Counter()
    for phrase in phrases:
        words = phrase.split()
        for word in words:
            frequency[word] += 1
            degree[word] += len(words)
    scores = {phrase: sum(degree[word] / frequency[word] for word in phrase.split()) for phrase in phrases}
    return sorted(phrases, key=lambda phrase: -scores[phrase])[:count]
