"""LLaVA conversation files, and the challenge's two conversions between them and Data-Juicer rows.

A LLaVA file is a JSON list of ``{"id", "image"?, "conversations": [{"from": "human"|"gpt", "value": ...}, ...]}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import LLAVA_IMAGE, Conversation, ImageRef, Segment
from bettersynth.core.seed import generator
from bettersynth.formats.data_juicer import DEFAULT_TOKENS, Tokens

_ROLE = re.compile(r"\[\[([A-Za-z]+)\]\]: ")
CAPTION_REQUESTS = (
    "Describe the image concisely.",
    "Provide a brief description of the given image.",
    "Offer a short explanation of the subsequent image.",
    "Summarize the visual content of the image.",
    "Give a short and clear explanation of the subsequent image.",
    "Share a concise description of the image provided.",
    "Present a compact description of the key features of the photo.",
    "Render a clear and concise summary of the photo.",
    "Write a short description of the picture.",
    "Create a compact account of the main details of the picture.",
)
"""What stage-1 data asks for; the questions of captions that come without one."""
_TARGET_ROLES = frozenset({"gpt", "assistant", "bot", "model"})


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that could not be used: its place in the file (from 0), its id if it has one, and why."""

    row: int
    id: str
    reason: str


@dataclass(slots=True)
class Reading:
    """Records that were read, and those that were not."""

    records: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def read_llava(path: Path) -> Reading:
    """Read a LLaVA file; records of a wrong form are set aside with a reason.

    Raises:
        DataError: the file is missing, is not valid JSON, or is no list.
    """
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=error.strerror or str(error)) from error
    except orjson.JSONDecodeError as error:
        if _holds_lines(path):
            way = f"bettersynth convert dj-to-llava --input {path} --output {path.with_suffix('.json')}"
            raise DataError(
                t("this file holds JSON lines, not one JSON list"),
                where=str(path),
                expected="[{...}, ...]",
                hint=t("rows become such a list with: {command}", command=way),
            ) from error
        raise DataError(t("not valid JSON: {error}", error=error), where=str(path)) from error
    if not isinstance(data, list):
        raise DataError(t("not a JSON list"), where=str(path), got=type(data).__name__, expected="[{...}, ...]")
    reading = Reading()
    for row, record in enumerate(data):
        reason = record_problem(record)
        if reason is None:
            reading.records.append(record)
        else:
            reading.rejected.append(Rejected(row, _id_of(record), reason))
    return reading


def _holds_lines(path: Path) -> bool:
    """Whether the first line is a JSON object by itself."""
    try:
        with path.open("rb") as handle:
            return isinstance(orjson.loads(handle.readline()), dict)
    except orjson.JSONDecodeError:
        return False


def record_problem(record: Any) -> str | None:
    """Why a value is not a LLaVA record, or None."""
    if not isinstance(record, dict):
        return t("not a JSON object but a {got}", got=type(record).__name__)
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        return t("field '{key}' must be a list with at least one turn", key="conversations")
    for turn in turns:
        if (
            not isinstance(turn, dict)
            or not isinstance(turn.get("from"), str)
            or not isinstance(turn.get("value"), str)
        ):
            return t("each turn needs the strings 'from' and 'value'")
    image = record.get("image")
    if image is not None and not isinstance(image, str):
        return t("field '{key}' must be a string, got {got}", key="image", got=type(image).__name__)
    return None


def _id_of(record: Any) -> str:
    return str(record.get("id", "")) if isinstance(record, dict) else ""


def write_llava(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a LLaVA file, one record a line inside the list, so that two versions can be compared."""
    body = b",\n".join(orjson.dumps(record) for record in records)
    write_atomic(path, b"[\n" + body + b"\n]\n" if records else b"[]\n")


def to_conversation(record: Mapping[str, Any]) -> Conversation:
    """A LLaVA record as a conversation; pictures stand where ``<image>`` stood, assistant turns are targets.

    Raises:
        DataError: the text has more image tokens than the record has pictures.
    """
    images = [record["image"]] if record.get("image") else []
    used = 0
    segments: list[Segment] = []
    for number, turn in enumerate(record["conversations"]):
        role = turn["from"]
        is_target = role in _TARGET_ROLES
        pieces = turn["value"].split(LLAVA_IMAGE)
        for index, piece in enumerate(pieces):
            if index:
                if used >= len(images):
                    raise DataError(
                        t("more image tokens than images"), where=str(record.get("id", "")), got=turn["value"][:80]
                    )
                segments.append(Segment("image", role, image=ImageRef(images[used]), turn=number))
                used += 1
            if piece or len(pieces) == 1:
                segments.append(Segment("text", role, text=piece, is_target=is_target, turn=number))
    meta = {key: value for key, value in record.items() if key not in ("id", "conversations")}
    return Conversation(str(record.get("id", "")), tuple(segments), {**meta, "raw_id": record.get("id", "")})


def from_conversation(conversation: Conversation) -> dict[str, Any]:
    """The LLaVA record of a conversation; the inverse of :func:`to_conversation`.

    Raises:
        DataError: it holds several different pictures, which a LLaVA record cannot.
    """
    paths = {image.path for image in conversation.images}
    if len(paths) > 1:
        raise DataError(t("a LLaVA record holds one image"), where=conversation.id, got=", ".join(sorted(paths)))
    record: dict[str, Any] = {"id": conversation.meta.get("raw_id", conversation.id)}
    if paths:
        record["image"] = paths.pop()
    elif conversation.meta.get("image"):
        record["image"] = conversation.meta["image"]
    record["conversations"] = [{"from": role, "value": text} for role, text in conversation.turns()]
    extra = {key: value for key, value in conversation.meta.items() if key not in ("raw_id", "image", "source")}
    return {**record, **extra}


def llava_to_dj(
    records: Iterable[Mapping[str, Any]],
    *,
    only_keep_caption: bool = False,
    tokens: Tokens = DEFAULT_TOKENS,
    image_token: str = LLAVA_IMAGE,
    separator: str = "\n",
) -> Iterator[dict[str, Any]]:
    """LLaVA records as Data-Juicer rows ``{id, text, images}``.

    Args:
        only_keep_caption: keep the image token and the assistant's sentences; the questions can be restored later.
        image_token: spelling written into the text; the challenge's files keep ``<image>``.

    Raises:
        DataError: an odd number of turns, or an image token that stands neither first nor last in the first question.
    """
    for record in records:
        turns = record["conversations"]
        where = str(record.get("id", ""))
        if len(turns) % 2:
            raise DataError(
                t("an odd number of turns"), where=where, got=len(turns), expected=t("question and answer pairs")
            )
        first = turns[0]["value"].strip()
        has_image = bool(record.get("image"))
        if has_image and not (first.startswith(LLAVA_IMAGE) or first.endswith(LLAVA_IMAGE)):
            raise DataError(
                t("the first question must start or end with {token}", token=LLAVA_IMAGE), where=where, got=first[:80]
            )
        if only_keep_caption:
            parts = [turn["value"] for turn in turns[1::2]]
            text = separator.join([image_token, *parts] if has_image else parts)
        else:
            text = separator.join(f"[[{turn['from']}]]: {turn['value']}" for turn in turns)
            text = text.replace(LLAVA_IMAGE, image_token)
        yield {
            "id": str(record.get("id", "")),
            "text": f"{text} {tokens.eoc}",
            "images": [record["image"]] if has_image else [],
        }


def dj_to_llava(
    rows: Iterable[Mapping[str, Any]],
    *,
    questions: Mapping[str, Mapping[str, Any]] | None = None,
    restore_questions: bool = True,
    keep_turns: bool = False,
    requests: Sequence[str] = (),
    tokens: Tokens = DEFAULT_TOKENS,
    text_key: str = "text",
    image_key: str = "images",
) -> list[dict[str, Any]]:
    """Data-Juicer rows as LLaVA records, with the limits of the challenge's locked conversion.

    With ``restore_questions`` the first human turn of the original record (found by id) is taken unchanged and the
    row's text, cleaned of special tokens, becomes the one answer. Repeated ids are allowed. Without it the text must
    hold ``[[human]]: ... [[gpt]]: ...`` turns.

    Args:
        questions: original records by id (as text), e.g. :func:`questions_by_id` of ``stage_1.json``.
        keep_turns: rows that bring turns of their own keep them beside rows whose question is restored (open track
            only; the locked conversion cannot do this).
        requests: without restored questions, one of these is asked of each picture whose row has no turns, drawn by
            the row's id (open track only). None are asked by default.

    Raises:
        DataError: ids that are not in ``questions`` (all listed), rows with several different pictures, or texts
            without paired turns. Nothing is converted then, as in the challenge.
    """
    if restore_questions and questions is None:
        raise DataError(
            t("restoring questions needs the original LLaVA file"), hint=t("give it with --original stage_1.json")
        )
    records: list[dict[str, Any]] = []
    unknown: list[str] = []
    for number, row in enumerate(rows):
        images = list(dict.fromkeys(row.get(image_key) or []))
        where = t("row {n} (id {id})", n=number + 1, id=row.get("id", ""))
        if len(images) > 1:
            raise DataError(t("a LLaVA record holds one image"), where=where, got=", ".join(images))
        text = str(row.get(text_key, ""))
        record: dict[str, Any]
        caption = tokens.strip(text)
        has_turns = keep_turns and brings_turns(text)
        if restore_questions and questions is not None and not has_turns:
            original = questions.get(str(row.get("id", "")))
            if original is None:
                unknown.append(str(row.get("id", "")))
                continue
            turns = original["conversations"]
            answer_role = turns[1]["from"] if len(turns) > 1 else "gpt"
            answer = {"from": answer_role, "value": caption}
            record = {"id": original["id"], "conversations": [dict(turns[0]), answer]}
        elif requests and images and caption and not brings_turns(text):
            request = generator("caption request", str(row.get("id", "")) or number).choice(requests)
            question = {"from": "human", "value": f"{LLAVA_IMAGE}\n{request}"}
            record = {"id": row.get("id", ""), "conversations": [question, {"from": "gpt", "value": caption}]}
        else:
            record = {"id": row.get("id", ""), "conversations": _parse_turns(text, tokens, where)}
        if images:
            record["image"] = images[0]
        records.append(record)
    if unknown:
        distinct = list(dict.fromkeys(unknown))
        shown = ", ".join(distinct[:20]) + (", ..." if len(distinct) > 20 else "")
        raise DataError(
            t("{n} ids are not in the original file, so their questions cannot be restored", n=len(distinct)),
            got=shown,
            hint=t("on the challenge track rows keep their id; new rows belong to the open track"),
        )
    return records


def brings_turns(text: str) -> bool:
    """Whether a row's text holds turns of its own, as ``[[human]]: ...``."""
    return _ROLE.search(text) is not None


def questions_by_id(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a LLaVA file by their id as text; the first of repeated ids counts."""
    found: dict[str, dict[str, Any]] = {}
    for record in read_llava(path).records:
        found.setdefault(str(record.get("id", "")), record)
    return found


def _parse_turns(text: str, tokens: Tokens, where: str) -> list[dict[str, str]]:
    parts = _ROLE.split(text)
    if parts[0].strip() or len(parts) % 4 != 1 or len(parts) == 1:
        raise DataError(
            t("no paired [[human]]: and [[gpt]]: turns in the text"),
            where=where,
            got=text[:80],
            hint=t("restore the questions of captions from the original file: {flag}", flag="--original stage_1.json"),
        )
    turns = []
    for number, (role, sentence) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        sentence = sentence.strip().removesuffix("\n").removesuffix(tokens.eoc).strip()
        for token in tokens.images:
            if number and (sentence.startswith(token) or sentence.endswith(token)):
                sentence = sentence.removeprefix(token).removesuffix(token).strip()
            sentence = sentence.replace(token, LLAVA_IMAGE)
        turns.append({"from": role, "value": sentence})
    return turns
