"""Noun phrases by a small rule, without a tagger."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\S+", text))


_ARTICLES = _words("a an the this that these those his her its their our my your some any each every")
_BREAKS = _words(
    """about above across after against all along among and around as at away back be became because been before behind
    below beneath beside besides between both but by can could did do does down during for from go goes had has have he
    i if in inside into is it just like near nearby next no not of off on onto or out outside over past shall she should
    so than then there they through to together toward towards under until up upon very was we were what when where
    which while who whom will with within without would you am are being here him how me more most much must only other
    own same such them too us why also another many several few next here's there's it's sits sit stands stand holds
    hold says say reads read wears wear looks look lies lie rides ride shows show eats eat walks walk runs run flies fly
    plays play"""
)
_VERB_ENDINGS = ("ing", "ly")
_NOUNS_IN_ING = _words(
    "building ceiling painting wing ring king string thing clothing railing evening morning wedding swing spring "
    "crossing lettering parking bedding frosting landing belly jelly family butterfly fly lily ally"
)


def noun_phrases(text: str) -> list[str]:
    """Runs of words between function words, articles left out, in order, each once.

    Data-Juicer asks NLTK's tagger for "optional determiner, adjectives, nouns". This rule needs no tagger:
    prepositions, verbs of a short list and words on -ing and -ly end a phrase, punctuation too.

    >>> noun_phrases("A red dog is sitting next to the old wooden bench, near a tree.")
    ['red dog', 'old wooden bench', 'tree']
    """
    found: dict[str, None] = {}
    for part in re.split(r"[^\w\s'’-]+", text.lower()):
        run: list[str] = []
        for word in [*_WORD.findall(part), ""]:
            ends_phrase = word.endswith(_VERB_ENDINGS) and word not in _NOUNS_IN_ING
            if not word or word in _ARTICLES or word in _BREAKS or ends_phrase:
                if run:
                    found[" ".join(run)] = None
                run = []
            else:
                run.append(word)
    return list(found)
