"""Kinds of questions and of expected answers, told from their words, for tables that show where a score comes from."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_YES_NO = frozenset(
    ("is", "are", "was", "were", "am", "be", "do", "does", "did", "can", "could", "will", "would", "shall", "should")
).union(("may", "might", "must", "has", "have", "had", "isn't", "aren't"))
_NOUNS = ("color", "colour", "number", "time", "year", "date", "brand", "name", "word", "kind", "type", "letter")
_NUMBERS = frozenset(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
)
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d.,:/]*%?")
_LONGEST_BAND = 4

QUESTION_TYPES: tuple[str, ...] = ("yes or no", "how many", "how much", "how", "what is written")
QUESTION_TYPES += tuple(f"what {noun}" for noun in _NOUNS if noun != "color")
QUESTION_TYPES += ("what", "which", "who", "where", "when", "why", "another form")
ANSWER_KINDS = ("yes or no", "number", "one word", "several words", "unknown")
ANSWER_LENGTHS = ("1 word", "2 words", "3 words", "4 words or more", "unknown")


def words(text: str) -> list[str]:
    """Lower-case words of a text, marks left out; letters of writing without spaces count one each.

    >>> words("What's the colour?"), words("什么颜色")
    (["what's", 'the', 'colour'], ['什', '么', '颜', '色'])
    """
    found = _WORD.findall(text.lower())
    return [part for word in found for part in (word if "一" <= word[0] <= "鿿" else [word])]


def question_type(text: str) -> str:
    """One of :data:`QUESTION_TYPES`, by the first question word and the noun beside it; a hint in front is skipped.

    >>> [question_type(q) for q in ("What is the color of it?", "How many?", "Is it on?", "Name the brand.")]
    ['what colour', 'how many', 'yes or no', 'another form']
    """
    sentence = text.strip().rsplit("\n", 1)[-1]
    found = words(sentence)
    if not found:
        return "another form"
    if found[0] in _YES_NO:
        return "yes or no"
    at = next((n for n, word in enumerate(found) if word.removesuffix("'s") in _ASKERS), None)
    if at is None:
        return "another form"
    asker, rest = found[at].removesuffix("'s"), found[at + 1 :]
    if asker == "how":
        return f"how {rest[0]}" if rest[:1] in (["many"], ["much"]) else "how"
    if asker in ("what", "which"):
        return _what(asker, rest)
    return "who" if asker in ("whose", "whom") else asker


_ASKERS = frozenset(("what", "which", "who", "whose", "whom", "where", "when", "why", "how"))


def _what(asker: str, rest: list[str]) -> str:
    """``what colour`` for "what colour", "what is the colour", "which colour"; else the bare word."""
    near = [word for word in rest[:4] if word not in ("is", "are", "was", "the", "this", "that", "a", "an")]
    noun = next((word for word in near[:1] if word.removesuffix("s") in _NOUNS), "").removesuffix("s")
    if noun:
        return "what colour" if noun == "color" else f"what {noun}"
    if {"say", "says", "written", "read", "spell"} & set(rest):
        return "what is written"
    return asker


def answer_kind(answer: str) -> str:
    """One of :data:`ANSWER_KINDS`.

    >>> [answer_kind(a) for a in ("Yes", "12%", "seven", "stop", "no entry", "")]
    ['yes or no', 'number', 'number', 'one word', 'several words', 'unknown']
    """
    text = answer.strip().rstrip(".").lower()
    if text in ("yes", "no"):
        return "yes or no"
    if _NUMBER.fullmatch(text) or text in _NUMBERS:
        return "number"
    count = len(text.split())
    return "unknown" if not text else "one word" if count == 1 and len(words(text)) <= 1 else "several words"


def answer_length(answer: str) -> str:
    """One of :data:`ANSWER_LENGTHS`.

    >>> [answer_length(a) for a in ("stop", "no entry", "on the left side", "")]
    ['1 word', '2 words', '4 words or more', 'unknown']
    """
    count = sum(max(1, sum("一" <= letter <= "鿿" for letter in chunk)) for chunk in answer.split())
    if count == 0:
        return "unknown"
    return ANSWER_LENGTHS[min(count, _LONGEST_BAND) - 1]
