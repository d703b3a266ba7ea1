"""The Data-Juicer view of a sample: one text with special tokens beside a list of picture paths.

``{"id": ..., "images": ["a.jpg"], "text": "<__dj__image>\\na caption <|__dj__eoc|>"}``. The challenge's files write
``<image>`` where Data-Juicer writes ``<__dj__image>``; both are read as the image token everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bettersynth.core.lang import t
from bettersynth.core.sample import DJ_AUDIO, DJ_EOC, DJ_IMAGE, DJ_VIDEO, LLAVA_IMAGE


@dataclass(frozen=True, slots=True)
class Tokens:
    """The special tokens in force. ``images`` lists every spelling of the image token that is read."""

    images: tuple[str, ...] = (DJ_IMAGE, LLAVA_IMAGE)
    audio: str = DJ_AUDIO
    video: str = DJ_VIDEO
    eoc: str = DJ_EOC

    def all(self) -> tuple[str, ...]:
        """Every special token, in Data-Juicer's order: image, audio, video, end of chunk."""
        return (*self.images, self.audio, self.video, self.eoc)

    def pattern(self) -> re.Pattern[str]:
        """Matches any special token."""
        return re.compile("|".join(re.escape(token) for token in self.all()))

    def num_images(self, text: str) -> int:
        """How many image tokens a text holds."""
        return sum(text.count(token) for token in self.images)

    def strip(self, text: str) -> str:
        """The text without special tokens: each kind is deleted, then the ends are stripped (inner spaces stay).

        >>> Tokens().strip("<__dj__image> a dog <|__dj__eoc|>")
        'a dog'
        """
        for token in self.all():
            text = text.replace(token, "").strip()
        return text

    def chunks(self, text: str) -> Iterator[tuple[str, int, int]]:
        """(chunk, offset of its first picture, number of its pictures) for each piece between end-of-chunk tokens."""
        offset = 0
        for chunk in text.split(self.eoc):
            count = self.num_images(chunk)
            yield chunk, offset, count
            offset += count

    def with_caption(self, text: str, caption: str) -> str | None:
        """The text with what stands between its leading and trailing special tokens replaced by ``caption``.

        White space beside the tokens stays. None when special tokens stand in the middle (several chunks or pictures
        interleaved with text), because then it is not clear what the caption is.

        >>> Tokens().with_caption("<image>\\nold words <|__dj__eoc|>", "new")
        '<image>\\nnew <|__dj__eoc|>'
        """
        head = 0
        pattern = self.pattern()
        while True:
            rest = len(text) - len(text[head:].lstrip())
            match = pattern.match(text, rest)
            if match is None or match.group() == self.eoc:
                break
            head = match.end()
        head = len(text) - len(text[head:].lstrip()) if head < len(text) else head
        tail = len(text.rstrip())
        while text.endswith(self.eoc, head, tail):
            tail = len(text[: tail - len(self.eoc)].rstrip())
        tail = max(head, tail)
        if pattern.search(text, head, tail):
            return None
        return text[:head] + caption + text[tail:]


DEFAULT_TOKENS = Tokens()


def field_problem(record: dict[str, Any], *, text_key: str, image_key: str) -> str | None:
    """Why a record cannot be used, or None: the text must be a string, the pictures a list of strings."""
    text = nested(record, text_key)
    if text is None:
        return t("no text: field '{key}' is missing or null", key=text_key)
    if not isinstance(text, str):
        return t("field '{key}' must be a string, got {got}", key=text_key, got=type(text).__name__)
    row_id = record.get("id")
    if row_id is not None and not isinstance(row_id, str | int):
        got = type(row_id).__name__
        return t("field '{key}' must be a string or a whole number, got {got}", key="id", got=got)
    images = record.get(image_key)
    if images is None:
        return None
    if not isinstance(images, list):
        return t("field '{key}' must be a list of paths, got {got}", key=image_key, got=type(images).__name__)
    for image in images:
        if not isinstance(image, str):
            return t("field '{key}' must hold strings, got {got}", key=image_key, got=type(image).__name__)
    return None


def nested(record: dict[str, Any], key: str) -> Any:
    """The value at a dotted path, or None; a top-level key that contains the dots wins."""
    if key in record or "." not in key:
        return record.get(key)
    value: Any = record
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
