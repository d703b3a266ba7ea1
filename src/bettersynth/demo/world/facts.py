"""What a sentence of the demo world claims: the inverse of its captions, to check prompts and captions by."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bettersynth.demo.world.language import PLACES, POSITIONS
from bettersynth.demo.world.reader import Reading
from bettersynth.demo.world.scene import Scene, Thing
from bettersynth.demo.world.vocab import COLOURS, KINDS, NUMBER_WORDS

_CELLS = {name: cell for cell, name in POSITIONS.items()}
_COUNTS = {word: number for number, word in enumerate(NUMBER_WORDS)} | {"a": 1, "an": 1}
_GROUP = re.compile(
    rf"\b(?P<count>{'|'.join(_COUNTS)})\s+(?P<colour>{'|'.join(COLOURS)})\s+(?P<kind>{'|'.join(KINDS)})(?P<many>s?)\b"
    r"(?:\s+with\s+number\s+(?P<number>\d+))?"
    rf"(?:\s+at\s+the\s+(?P<cell>{'|'.join(sorted(_CELLS, key=len, reverse=True))})\b)?"
)
_WORD = re.compile(r"\b(?:says|reads|word)\s+([A-Z]+)\b")


@dataclass(frozen=True, slots=True)
class Group:
    """Some objects of one colour and kind; a lone one may have a place and a number."""

    count: int
    colour: str
    kind: str
    cell: tuple[int, int] | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a sentence claims; an empty place claims nothing."""

    groups: tuple[Group, ...] = ()
    words: tuple[str, ...] = ()
    place: str = ""


def parse(text: str) -> Facts:
    """The claims of a caption or prompt of the demo world; what cannot be read is left out.

    >>> parse("two red balls and a blue cup at the top left at night ; the sign says STOP")
    ... # doctest: +NORMALIZE_WHITESPACE
    Facts(groups=(Group(count=2, colour='red', kind='ball', cell=None, number=None),
                  Group(count=1, colour='blue', kind='cup', cell=(0, 0), number=None)),
          words=('STOP',), place='night')
    """
    groups = tuple(
        Group(
            _COUNTS[found["count"]],
            found["colour"],
            found["kind"],
            _CELLS.get(found["cell"] or ""),
            int(found["number"]) if found["number"] else None,
        )
        for found in _GROUP.finditer(text)
    )
    place = next((name for name, phrase in PLACES.items() if re.search(rf"\b{phrase}\b", text)), "")
    return Facts(groups, tuple(_WORD.findall(text)), place)


def judge(facts: Facts, seen: Scene | Reading) -> dict[str, bool]:
    """Which parts of a sentence are true of a picture; only parts that the sentence speaks of.

    Args:
        facts: the claims.
        seen: a scene, or what was read from a picture.

    Returns:
        ``object`` (each kind is there), ``colour`` (each in its colour), ``count`` (exactly so many of each kind),
        ``position``, ``number``, ``text``, ``place``; and ``right``: all of them.
    """
    things = seen.things
    parts: dict[str, bool] = {}
    if facts.groups:
        parts["object"] = all(any(thing.kind == group.kind for thing in things) for group in facts.groups)
        parts["colour"] = all(any(_fits(thing, group) for thing in things) for group in facts.groups)
        kinds = {group.kind for group in facts.groups}
        wanted = {kind: sum(group.count for group in facts.groups if group.kind == kind) for kind in kinds}
        parts["count"] = all(sum(t.kind == kind for t in things) == count for kind, count in wanted.items()) and all(
            sum(_fits(thing, group) for thing in things) >= group.count for group in facts.groups
        )
    placed = [group for group in facts.groups if group.cell is not None]
    if placed:
        parts["position"] = all(any(_fits(t, group) and t.cell == group.cell for t in things) for group in placed)
    numbered = [group for group in facts.groups if group.number is not None]
    if numbered:
        parts["number"] = all(any(_fits(t, group) and t.number == group.number for t in things) for group in numbered)
    if facts.words:
        parts["text"] = set(facts.words) <= {sign.word for sign in seen.signs}
    if facts.place:
        parts["place"] = facts.place == seen.background
    parts["right"] = all(parts.values())
    return parts


def _fits(thing: Thing, group: Group) -> bool:
    return thing.combo == (group.colour, group.kind)
