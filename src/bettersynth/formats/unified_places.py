"""Which of the pictures that came with a unified record goes where: by name, else by number, and never by guess."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from bettersynth.core.lang import t
from bettersynth.formats.unified import Problem

SHOWN = 20
_BARE = re.compile(r"[0-9]+\.[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Held:
    """A picture that came with a record: its names (the first is no other's), its path, and a text with its number."""

    names: tuple[str, ...]
    path: str
    number: str


def place(
    record: dict[str, Any], held: Sequence[Held], problems: list[Problem], *, settled: Collection[int], is_loose: bool
) -> None:
    """Put the paths of held pictures where the record names them, or else one after the other.

    Args:
        record: changed in place.
        held: the pictures.
        problems: gets every picture that has no place, or more than one.
        settled: ids of holders with a picture of their own, which nothing replaces.
        is_loose: names that no picture has are no paths either, so the pictures may go there by their numbers.
    """
    slots, used = _slots(record), set[str]()
    free = [(holder, key) for holder, key in slots if id(holder) not in settled]
    names = [_value(holder, key) for holder, key in free]
    for (holder, key), name in zip(free, names, strict=True):
        found = {item.path: item for item in _called(name, held)}
        used.update(found)
        if len(found) == 1:
            (holder[key],) = found
        elif found:
            message = t("{name} could be any of {n} pictures", name=name, n=len(found))
            problems.append(_problem(message, list(found.values())))
    if used and all(_BARE.fullmatch(name) for name in names):
        # Writers that pack pictures by their place call them so, too, and leave the record's own names as they were.
        ordered = [item.path for item in _ordered(held) or ()]
        if [path for path in ordered if path in used] != [_value(*slot) for slot in free]:
            problems.append(_problem(t("names that are mere numbers stand in another order than the pictures"), held))
            return
    if used or (slots and not free):
        if left := [item for item in held if item.path not in used]:
            problems.append(_problem(t("{n} pictures that the record does not name", n=len(left)), left))
        return
    turns = record.get("conversations")
    is_whole = not slots and _is_llava(turns)
    if not is_whole and (len(free) != len(held) or (any(names) and not is_loose)):
        count = sum(map(bool, names))
        message = t("{n} pictures beside a record that names {m}, none of them", n=len(held), m=count)
        problems.append(_problem(message, held))
    elif (ordered := _ordered(held)) is None:
        problems.append(_problem(t("{n} pictures without names or numbers to tell their order", n=len(held)), held))
    elif is_whole:
        record["image"] = [item.path for item in ordered]
    else:
        for (holder, key), item in zip(free, ordered, strict=True):
            holder[key] = item.path


def _slots(record: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Where a record has pictures, in order: holders and keys of ``image_path``, or of LLaVA's ``image``."""
    if "conversations" not in record:
        return [(record, "image_path")]
    turns = record["conversations"]
    found: list[tuple[Any, Any]] = []
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and ("image_path" in turn or turn.get("type") == "image"):
            found.append((turn, "image_path"))
    if not _is_llava(turns):
        return found
    if isinstance(record.get("image"), list):
        found += [(record["image"], place) for place in range(len(record["image"]))]
    elif isinstance(record.get("image"), str):
        found.append((record, "image"))
    return found


def _is_llava(turns: Any) -> bool:
    return isinstance(turns, list) and any(isinstance(turn, dict) and "from" in turn for turn in turns)


def _value(holder: Any, key: Any) -> str:
    """What a place says, nothing if it is empty."""
    value = holder.get(key) if isinstance(holder, dict) else holder[key]
    return "" if value is None else str(value)


def _called(name: str, held: Sequence[Held]) -> list[Held]:
    """The pictures with a name; capital and small letters are the same only where nothing is written just so."""
    wanted = name.removeprefix("./")
    exact = [item for item in held if wanted in (known.removeprefix("./") for known in item.names)]
    wanted = wanted.lower()
    return exact or [item for item in held if wanted in (known.removeprefix("./").lower() for known in item.names)]


def _ordered(held: Sequence[Held]) -> list[Held] | None:
    """Pictures by their numbers (2 before 10); None if something else than a number tells them apart."""
    numbered = {}
    for item in held:
        digits = [run.lstrip("0") for run in re.findall(r"[0-9]+", item.number)]
        numbered[tuple((len(run), run) for run in digits)] = item
    alike = {re.sub(r"[0-9]+", "#", item.number) for item in held}
    return [numbered[key] for key in sorted(numbered)] if len(alike) == 1 and len(numbered) == len(held) else None


def _problem(message: str, held: Sequence[Held]) -> Problem:
    names = ", ".join(item.names[0] for item in held[:SHOWN])
    return Problem("image_path", message, t("call them as they are called: {names}", names=names))
