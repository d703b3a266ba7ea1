"""Records of unified generation: texts and pictures in order, said by a user or learnt from an assistant.

Two forms of one record, one JSON object each; :mod:`unified_files <bettersynth.formats.unified_files>` reads files:

* a conversation: ``{"conversations": [{"role", "type": "text", "content"}, {"role", "type": "image", "image_path"}]}``;
  describing, asking, drawing, editing and interleaved records are all of this form;
* a text-to-image pair: ``{"text_prompt", "image_path"}``.

LLaVA records (``conversations`` of ``from`` and ``value`` with ``<image>``) are read as well. What a record learns is
what the assistant says or shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.errors import BetterSynthError, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.core.sample import LLAVA_IMAGE, Conversation, ImageRef, Segment

ROLES = ("system", "user", "assistant")
TARGET_ROLE = "assistant"
TYPES = ("text", "image")
_LLAVA_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TURN_KEYS = ("role", "type", "content", "image_path")
_PAIR_KEYS = ("text_prompt", "image_path")
_KNOWN_KEYS = ("id", "conversations", *_PAIR_KEYS, "image", "meta")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of one record: which field, what is wrong with it, and how to mend it."""

    field: str
    message: str
    fix: str

    def line(self) -> str:
        """The three in one line."""
        return f"{self.field}: {self.message} ({self.fix})" if self.field else f"{self.message} ({self.fix})"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record with mistakes: its row from 0, its id if it has one, and all that is wrong with it."""

    row: int
    id: str
    problems: tuple[Problem, ...]

    @property
    def reason(self) -> str:
        """All mistakes in one line."""
        return "; ".join(problem.line() for problem in self.problems)


def parse_record(record: Any, row: int = 0) -> Conversation | BadRecord:
    """One record as a conversation, or everything that is wrong with it.

    >>> parse_record({"text_prompt": "a cat", "image_path": "cat.png"}).segments[1].is_target
    True
    >>> parse_record({"text_prompt": "a cat"}).reason
    'image_path: is missing (give the path of the picture to be drawn)'
    """
    if not isinstance(record, Mapping):
        got = type(record).__name__
        problem = Problem("", t("not a JSON object but a {got}", got=got), t("write one JSON object per record"))
        return BadRecord(row, "", (problem,))
    key = str(row if record.get("id") is None else record["id"])
    problems: list[Problem] = []
    _check_keys(record, problems)
    if "conversations" in record:
        segments = _conversation(record, problems)
    else:
        segments = _pair(record, problems)
    if problems:
        return BadRecord(row, key, tuple(problems))
    meta = {name: value for name, value in record.items() if name not in ("conversations", *_PAIR_KEYS)}
    return Conversation(key, tuple(segments), meta)


def drawing_records(records: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, str]], list[BadRecord]]:
    """Text-to-image pairs from captioned pictures in LLaVA form: the caption asks for the picture.

    Returns:
        The pairs, and the records that are no picture with one caption.

    >>> turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat"}]
    >>> drawing_records([{"id": "7", "image": "cat.png", "conversations": turns}])[0]
    [{'id': '7', 'text_prompt': 'a cat', 'image_path': 'cat.png'}]
    """
    pairs: list[dict[str, str]] = []
    rejected: list[BadRecord] = []
    for row, record in enumerate(records):
        parsed = parse_record(record, row)
        if isinstance(parsed, BadRecord):
            rejected.append(parsed)
            continue
        pictures = [segment.image for segment in parsed.segments if segment.image is not None]
        captions = [segment.text for segment in parsed.segments if segment.is_target and segment.text is not None]
        if len(pictures) != 1 or len(captions) != 1:
            fix = t("keep records of one picture and one answer")
            problem = Problem("conversations", t("no picture with one caption"), fix)
            rejected.append(BadRecord(row, parsed.id, (problem,)))
            continue
        pairs.append({"id": parsed.id, "text_prompt": captions[0], "image_path": str(pictures[0].path)})
    return pairs, rejected


def _check_keys(record: Mapping[str, Any], problems: list[Problem]) -> None:
    """Other keys are kept as notes; one that looks like a known key is a typing mistake."""
    for key in record:
        near = did_you_mean(str(key), _KNOWN_KEYS) if key not in _KNOWN_KEYS else None
        if near:
            problems.append(Problem(str(key), t("unknown key"), near))
    if "conversations" in record and "text_prompt" in record:
        fix = t("keep one of conversations and text_prompt")
        problems.append(Problem("text_prompt", t("a record has one form only"), fix))


def _pair(record: Mapping[str, Any], problems: list[Problem]) -> list[Segment]:
    fixes = {
        "text_prompt": t("give the text that asks for the picture, or a list of conversations"),
        "image_path": t("give the path of the picture to be drawn"),
    }
    for key, fix in fixes.items():
        _need_text(record.get(key), key, fix, problems)
    if problems:
        return []
    return [
        Segment("text", "user", text=record["text_prompt"]),
        Segment("image", TARGET_ROLE, image=ImageRef(record["image_path"]), is_target=True, turn=1),
    ]


def _need_text(value: Any, field: str, fix: str, problems: list[Problem]) -> bool:
    if value is None:
        problems.append(Problem(field, t("is missing"), fix))
    elif not isinstance(value, str):
        problems.append(Problem(field, t("must be a string, got {got}", got=type(value).__name__), fix))
    elif not value.strip():
        problems.append(Problem(field, t("is empty"), fix))
    else:
        return True
    return False


def _conversation(record: Mapping[str, Any], problems: list[Problem]) -> list[Segment]:
    turns = record["conversations"]
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        message = t("must be a list with at least one turn")
        problems.append(Problem("conversations", message, t("give the turns in order, each an object")))
        return []
    if all(isinstance(turn, Mapping) and "from" in turn for turn in turns):
        segments = _llava(record, turns, problems)
    else:
        segments = [part for number, turn in enumerate(turns) for part in _turn(turn, number, problems)]
    if not problems and not any(segment.is_target for segment in segments):
        fix = t("add a turn with role assistant: the text or picture to be learnt")
        problems.append(Problem("conversations", t("nothing in this record can be learnt"), fix))
    return segments


def _turn(turn: Any, number: int, problems: list[Problem]) -> list[Segment]:
    where = f"conversations[{number}]"
    before = len(problems)
    if not isinstance(turn, Mapping):
        got = type(turn).__name__
        problems.append(
            Problem(where, t("not a JSON object but a {got}", got=got), t("give role, type and content or image_path"))
        )
        return []
    for key in turn:
        if key not in _TURN_KEYS:
            names = ", ".join(_TURN_KEYS)
            fix = did_you_mean(str(key), _TURN_KEYS) or t("one of: {names}", names=names)
            problems.append(Problem(f"{where}.{key}", t("unknown key"), fix))
    for key, allowed in (("role", ROLES), ("type", TYPES)):
        fix = t("one of: {names}", names=", ".join(allowed))
        if _need_text(turn.get(key), f"{where}.{key}", fix, problems) and turn[key] not in allowed:
            problems.append(Problem(f"{where}.{key}", t("cannot be {got}", got=turn[key]), fix))
    kind, role = turn.get("type"), turn.get("role")
    wanted, other = ("image_path", "content") if kind == "image" else ("content", "image_path")
    fix = t("give the path of the picture") if kind == "image" else t("give the text")
    _need_text(turn.get(wanted), f"{where}.{wanted}", fix, problems)
    if other in turn and kind in TYPES:
        message = t("does not belong to a turn of type {kind}", kind=kind)
        problems.append(Problem(f"{where}.{other}", message, t("make it a turn of its own")))
    if len(problems) > before:
        return []
    is_target = role == TARGET_ROLE
    if kind == "image":
        return [Segment("image", role, image=ImageRef(turn["image_path"]), is_target=is_target, turn=number)]
    return [Segment("text", role, text=turn["content"], is_target=is_target, turn=number)]


def _llava(record: Mapping[str, Any], turns: Sequence[Any], problems: list[Problem]) -> list[Segment]:
    """LLaVA turns; pictures are taken in order for ``<image>``, and are only looked at, never drawn."""
    given = record.get("image") or []
    images = [given] if isinstance(given, str) else list(given)
    segments: list[Segment] = []
    used = 0
    for number, turn in enumerate(turns):
        where = f"conversations[{number}]"
        role = _LLAVA_ROLES.get(str(turn.get("from")))
        if role is None:
            fix = t("one of: {names}", names=", ".join(_LLAVA_ROLES))
            problems.append(Problem(f"{where}.from", t("cannot be {got}", got=turn.get("from")), fix))
        if not _need_text(turn.get("value"), f"{where}.value", t("give the text"), problems) or role is None:
            continue
        for index, piece in enumerate(turn["value"].split(LLAVA_IMAGE)):
            if index:
                if used < len(images):
                    segments.append(Segment("image", role, image=ImageRef(str(images[used])), turn=number))
                used += 1
            if piece.strip():
                is_target = role == TARGET_ROLE
                segments.append(Segment("text", role, text=piece.strip(), is_target=is_target, turn=number))
    if used != len(images):
        message = t("{n} pictures for {m} image tokens", n=len(images), m=used)
        problems.append(Problem("image", message, t("give one picture for each <image>")))
    return segments


def refuse(bad: Sequence[BadRecord], where: Path, *, shown: int = 20) -> BetterSynthError:
    """One error that lists the mistakes of many records, the first ``shown`` records in full."""
    lines = [f"record {item.row} ({item.id}): {item.reason}" for item in bad[:shown]]
    if len(bad) > shown:
        lines.append(t("... {n} more", n=len(bad) - shown))
    return DataError(
        t("{n} records cannot be used", n=len(bad)),
        where=str(where),
        got="\n    ".join(lines),
        hint=t("mend or remove these records; the forms are in sample_data_format.json"),
    )
