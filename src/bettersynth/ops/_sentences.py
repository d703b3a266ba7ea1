"""Where sentences end: the Punkt procedure with ready parameters.

A period ends a sentence unless it belongs to an abbreviation, an initial or a number that the next word continues.
What a language's abbreviations and habits of capitals are stands in a folder of four small files, in the form in which
NLTK distributes its Punkt models (``punkt_tab/english``); a short list of abbreviations is built in.

Source: Kiss and Strunk, Unsupervised Multilingual Sentence Boundary Detection, Computational Linguistics 32 (2006),
sections 3 and 4; what counts as a word is taken from NLTK 3.10, so that the sentences are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

FILES = ("abbrev_types.txt", "collocations.tab", "sent_starters.txt", "ortho_context.tab")
ABBREVIATIONS = {
    "en": (
        "mr mrs ms dr prof rev hon gen col maj capt lt sgt gov sen rep pres st jr sr messrs inc ltd corp co bros dept "
        "univ assn vs etc al cf viz approx est e.g i.e a.m p.m u.s u.k u.s.a u.n d.c ph.d b.c a.d jan feb apr aug sept "
        "oct nov dec mt ft ave blvd rd fig figs vol vols ed eds pp op"
    ),
    "fr": "m mm mme mmes mlle dr pr me st ste cf etc p.ex c.-à-d av bd env éd fig ibid janv févr juil sept oct nov déc",
    "pt": "sr sra srs dr dra prof profa eng exmo ex etc p.ex pág págs av tel ltda cia fig séc jan fev mar abr set dez",
    "es": "sr sra srta srs dr dra prof ud uds vd vds etc p.ej pág págs av avda tel cía ee.uu fig núm ene feb ago sept",
}
# How often a word was seen with a small or capital first letter, as bits: at the start of a sentence, inside, unknown.
_START_CAPITAL, _INSIDE_CAPITAL, _SOME_CAPITAL, _START_SMALL, _INSIDE_SMALL, _SOME_SMALL = (2 << n for n in range(6))
_CAPITAL = _START_CAPITAL | _INSIDE_CAPITAL | _SOME_CAPITAL
_SMALL = _START_SMALL | _INSIDE_SMALL | _SOME_SMALL

_QUOTES = "‘’“”«»"
_APART = rf"""[)";}}\]*:@'({{\[{_QUOTES}?!]"""
_RUN = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_WORD = re.compile(
    rf"""{_RUN}|(?=[^("`{{\[:;&\#*@)}}\]\-,])\S+?(?=\s|$|{_APART}|{_RUN}|,(?=$|\s|{_APART}|{_RUN}))|\S"""
)
_END = re.compile(rf"[.?!](?=(?P<after>{_APART}|\s+(?P<next>\S+)))")
_CLOSING = re.compile(rf"""["')\]}}{_QUOTES}]+?(?:\s+|(?=--)|$)""", re.MULTILINE)
_NUMBER = re.compile(r"^-?[.,]?\d[\d,.-]*\.?$")
_INITIAL = re.compile(r"[^\W\d]\.$")
_DOTS = re.compile(r"\.\.+$")
_BLANKS = " \t\n\r\x0b\x0c"


@dataclass(frozen=True, slots=True)
class Punkt:
    """What is known of a language.

    Args:
        abbreviations: lower-case words without their last period.
        together: pairs of word types that a period between them does not part.
        starters: lower-case words that often begin a sentence.
        cases: how each word type was seen, as a sum of bits.
    """

    abbreviations: frozenset[str]
    together: frozenset[tuple[str, str]] = frozenset()
    starters: frozenset[str] = frozenset()
    cases: Mapping[str, int] = field(default_factory=dict)

    def sentences(self, text: str) -> list[str]:
        """The sentences; white space between them is left out, everything else stays."""
        found, skip = [], 0
        spans = list(self._spans(text))
        for place, (start, end) in enumerate(spans):
            start += skip
            skip = 0
            if place + 1 < len(spans):
                # Closing quotes and brackets behind the mark belong to the sentence before them.
                following = text[slice(*spans[place + 1])]
                closing = _CLOSING.match(following)
                if closing:
                    skip = closing.end()
                    found.append(text[start : spans[place + 1][0] + len(closing.group().rstrip())])
                    continue
            if text[start:end]:
                found.append(text[start:end])
        return found

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        start = 0
        for match, context in _candidates(text):
            if self._parts(context):
                yield start, match.end()
                start = match.end() if match["next"] is None else match.start("next")
        yield start, len(text.rstrip())

    def _parts(self, context: str) -> bool:
        """Whether a sentence ends inside this piece of text, before its last word."""
        words = [_Word(word, self) for line in context.split("\n") for word in _WORD.findall(line)]
        for word, following in pairwise(words):
            word.look_at(following, self)
            if word.ends:
                return True
        return False


class _Word:
    """A word, with what its own form says of a sentence's end after it."""

    __slots__ = ("ends", "is_abbreviation", "is_dots", "kind", "text")

    def __init__(self, text: str, known: Punkt) -> None:
        self.text = text
        self.kind = _NUMBER.sub("##number##", text.lower())
        self.ends = text in (".", "?", "!")
        self.is_dots = self.is_abbreviation = False
        if self.ends:
            return
        if _DOTS.match(text):
            self.is_dots = True
        elif text.endswith(".") and not text.endswith(".."):
            bare = text[:-1].lower()
            self.is_abbreviation = bare in known.abbreviations or bare.split("-")[-1] in known.abbreviations
            self.ends = not self.is_abbreviation

    def _bare(self) -> str:
        return self.kind[:-1] if len(self.kind) > 1 and self.kind.endswith(".") else self.kind

    def _type(self) -> str:
        return self._bare() if self.ends else self.kind

    def look_at(self, following: _Word, known: Punkt) -> None:
        """Decide anew, now that the next word is known."""
        if not self.text.endswith("."):
            return
        bare, next_type = self._bare(), following._type()
        if (bare, next_type) in known.together:
            self.ends = False
            return
        is_initial = _INITIAL.match(self.text) is not None
        starts = following.starts_sentence(known)
        is_capital = following.text[0].isupper()
        is_unsure = (self.is_abbreviation or self.is_dots) and not is_initial
        if is_unsure and (starts or (is_capital and next_type in known.starters)):
            self.ends = True
            return
        if is_initial or bare == "##number##":
            never_small = not known.cases.get(next_type, 0) & _SMALL
            if starts is False or (starts is None and is_initial and is_capital and never_small):
                self.ends = False

    def starts_sentence(self, known: Punkt) -> bool | None:
        """Whether its capitals say that this word begins a sentence; None when they do not tell."""
        if self.text in (";", ":", ",", ".", "!", "?"):
            return False
        seen = known.cases.get(self._type(), 0)
        if self.text[0].isupper() and seen & _SMALL and not seen & _INSIDE_CAPITAL:
            return True
        if self.text[0].islower() and (seen & _CAPITAL or not seen & _START_SMALL):
            return False
        return None


def _candidates(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Marks that may end a sentence, each with the word before and what follows; of marks in one word the last."""
    before: re.Match[str] | None = None
    start = 0
    for match in _END.finditer(text):
        since = 0 if before is None else before.start()
        blank = max(text.rfind(blank, since, match.start()) for blank in _BLANKS)
        word = blank + 1 if blank > since else start
        if before is not None and before.start() <= word:
            yield before, text[start : before.start()] + before.group() + before["after"]
        before, start = match, word
    if before is not None:
        yield before, text[start : before.start()] + before.group() + before["after"]


@lru_cache(maxsize=16)
def load(folder: str | None, language: str) -> Punkt:
    """The parameters in a folder, or what is built in for a language.

    Raises:
        ConfigError: no such folder, or a file is missing or cannot be read.
    """
    if folder in (None, "fake"):
        return Punkt(frozenset(ABBREVIATIONS[language].split()))
    try:
        texts = [(Path(str(folder)) / name).read_text(encoding="utf-8") for name in FILES]
        abbreviations, pairs, starters, cases = ([line for line in text.split("\n") if line] for text in texts)
        together = frozenset((first, second) for first, second in (line.split("\t") for line in pairs))
        seen = {word: int(bits) for word, bits in (line.split("\t") for line in cases)}
    except (OSError, ValueError) as error:
        raise ConfigError(
            t("no Punkt parameters in this folder"), got=str(error), expected=", ".join(FILES), where=str(folder)
        ) from error
    return Punkt(frozenset(abbreviations), together, frozenset(starters), seen)
