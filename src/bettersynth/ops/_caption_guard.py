"""What a caption says that a change of its picture could make false, in English and Chinese."""

from __future__ import annotations

import re

_SIDE = re.compile(r"\b(left|right)(most|wards?|-?hand(?:ed)?|-?most)?\b", re.IGNORECASE)
_WHERE = r"(?:(?:far|upper|lower|top|bottom|very|front|back|rear|middle|immediate|extreme)[ -])"
_PART = (
    r"(?:side|hand|corner|edge|half|part|third|end|arm|leg|foot|eye|ear|wing|shoulder|knee|cheek|lane|wall|page)s?\b"
)
_NO_PLACE = (
    r"(?! (?:place|way|track|time|order|moment|direction|position|answer|choice|one|thing|size|amount|spot|angles?|to)"
    r"\b)"
)
# "on the (upper) left", "upper left", "left of", "left side", "facing left": here the words are places for certain.
_IS_PLACE = re.compile(
    r"\b(?:on|to|at|from|in|towards?|near|by|of|along) (?:the|its|his|her|their|my|your) "
    rf"{_WHERE}?(?:left|right)\b{_NO_PLACE}"
    rf"|\b(?:facing|faces|looking|looks|pointing|points|turned|turning|leaning|heading) (?:left|right)\b{_NO_PLACE}"
    rf"|\bleft to right\b|\bright to left\b|{_WHERE}(?:left|right)\b|\b(?:left|right) of\b"
    rf"|\b(?:left|right)[ -]{_PART}|\b(?:left|right)(?:-?most|wards?|-?hand)",
    re.IGNORECASE,
)
_ZH_SIDE = re.compile("[左右]")
_ZH_OTHER = re.compile("左右|右左|座右|左撇|右撇|左倾|右倾|左派|右派")
_LETTERS = re.compile(
    r"[\"“”「」『』《》]|\b[A-Z]{2,}\b|\d"
    r"|\b(?:say|says|saying|read|reads|reading|written|writing|word|words|letter|letters|lettering|text|sign|logo|label|"
    r"number|numbers|poster|banner|book|newspaper|clock|watch|map|screen|keyboard|license|plate|east|west|eastern|western|"
    r"clockwise|counterclockwise|mirror|mirrored)\b|[字写读标牌钟表图]",
)
_COLOUR = re.compile(
    r"\b(?:red|orange|yellow|green|blue|purple|violet|pink|brown|black|white|gr[ae]y|golden|gold|silver|beige|tan|teal|cyan|"
    r"magenta|turquoise|maroon|navy|crimson|scarlet|ivory|blond|blonde|brunette|ginger|colou?r\w*|dark|light|pale|bright|"
    r"vivid|monochrome|sepia)\w{0,4}\b|[红橙黄绿蓝紫粉棕黑白灰金银彩色]",
    re.IGNORECASE,
)
_LIGHT = re.compile(
    r"\b(?:dark|darkness|dim|bright|brightly|light|lit|night|nighttime|day|daytime|daylight|sunny|sunlit|sunset|sunrise|dawn|"
    r"dusk|evening|morning|shadow|shadows|shady|gloomy|overexposed|underexposed|black|white|foggy|hazy|contrast)\b|[亮暗夜昼黑白]",
    re.IGNORECASE,
)
_POSITION = re.compile(
    r"\b(?:left|right|top|bottom|upper|lower|above|below|corner|edge|border|side|sides|center|centre|middle|background|"
    r"foreground|behind|surrounded|around|framed|frame|full|whole|entire|distance|far)\b|[左右上下角边中旁周全]",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|both|pair|couple|several|many|few|dozen|dozens|"
    r"all|each|every|group|crowd|rows?|only)\b|[一二两三四五六七八九十几双对群每都]",
    re.IGNORECASE,
)
_UPRIGHT = re.compile(
    r"\b(?:top|bottom|upper|lower|above|below|under|over|beneath|up|down|upside|vertical|horizontal|tilted|level|upright|"
    r"leaning|slanted|diagonal)\b|[上下斜倾]",
    re.IGNORECASE,
)
_SETTING = re.compile(
    r"\b(?:in|inside|on|at|by|near|beside|next|behind|under|beneath|above|over|against|among|between|through|along|around|"
    r"outside|outdoors|indoors|front|background|scene|view|landscape|sky|road|street|field|grass|water|beach|room|wall|"
    r"floor|forest|snow)\b|[在里外上下旁前后背景天路街海草地墙]",
    re.IGNORECASE,
)


def swap_sides(text: str) -> str | None:
    """The text of the mirrored picture: left and right exchanged, or None when that cannot be done for certain.

    >>> swap_sides("a dog on the left, a cat to the right of it")
    'a dog on the right, a cat to the left of it'
    >>> swap_sides("a man who left the house") is None
    True
    """
    return exchange_sides(text) if may_mirror(text) else None


def may_mirror(caption: str) -> bool:
    """Whether the caption is true of the mirrored picture once its left and right are exchanged.

    Not when the words may mean something else ("right now", "he left", "左右" as "about"), and not when the caption
    speaks of lettering, clocks or maps, which a mirror makes false whatever the words are.
    """
    if _LETTERS.search(caption) or _ZH_OTHER.search(caption):
        return False
    places = [match.span() for match in _IS_PLACE.finditer(caption)]
    sides = (match.start() for match in _SIDE.finditer(caption))
    return all(any(start <= side < stop for start, stop in places) for side in sides)


def exchange_sides(text: str) -> str:
    """Every left becomes a right and the other way round; the case of the letters stays."""
    swapped = _SIDE.sub(lambda match: _other(match.group(1)) + (match.group(2) or ""), text)
    return _ZH_SIDE.sub(lambda match: "右" if match.group() == "左" else "左", swapped)


def _other(word: str) -> str:
    new = "right" if word.lower() == "left" else "left"
    return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new


def names_colour(text: str) -> bool:
    """Whether a shift of hue or a loss of colour could make the text false."""
    return bool(_COLOUR.search(text))


def names_light(text: str) -> bool:
    """Whether a change of brightness or contrast could."""
    return bool(_LIGHT.search(text))


def names_extent(text: str) -> bool:
    """Whether cutting off the margins could: the text names places, numbers, lettering."""
    return bool(_POSITION.search(text) or _COUNT.search(text) or _LETTERS.search(text))


def names_upright(text: str) -> bool:
    """Whether a strong rotation could."""
    return bool(_UPRIGHT.search(text))


def names_setting(text: str) -> bool:
    """Whether another background could: the text says where things are."""
    return bool(_SETTING.search(text) or _POSITION.search(text))
