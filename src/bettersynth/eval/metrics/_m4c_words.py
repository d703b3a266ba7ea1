"""Word tables of the m4c answer normalisation, written as rules instead of 112 pairs.

Source: the contraction table of the public m4c / TextVQA evaluator, reduced to the entries that can ever match after
its first steps. ``im, ive, id've, shes, its, lets, ill`` are absent there too.
"""

from __future__ import annotations

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = {
    word: str(value)
    for value, words in enumerate(
        ("none zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
    for word in words.split()
}

_ONE_APOSTROPHE = """
'twas ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll
somebody's someone'd someone'll someone's something'd
something'll that's there'd there're there's they'd they'll they're
they've wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_TWO_APOSTROPHES = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
_IRREGULAR = {
    "'ows'at": "'ow's'at",
    "somebody'd": "somebodyd",
    "y'all'dve": "y'all'd've",
    "y'alld've": "y'all'd've",
    "yall'd've": "y'all'd've",
}


def contractions() -> dict[str, str]:
    """Misspelt contraction to its usual spelling: no apostrophe at all, or one of two missing."""
    table = {word.replace("'", ""): word for word in _ONE_APOSTROPHE.split()}
    for word in _TWO_APOSTROPHES.split():
        first, middle, last = word.split("'")
        table[f"{first}{middle}'{last}"] = word
        table[f"{first}'{middle}{last}"] = word
    return table | _IRREGULAR
