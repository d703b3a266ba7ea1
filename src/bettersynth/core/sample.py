"""The records that every part of the system passes around: conversations, their segments, and row keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DJ_IMAGE = "<__dj__image>"
DJ_AUDIO = "<__dj__audio>"
DJ_VIDEO = "<__dj__video>"
DJ_EOC = "<|__dj__eoc|>"
LLAVA_IMAGE = "<image>"

SegmentKind = Literal["text", "image"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A picture by reference. ``path`` is relative to the image root of its data set unless absolute."""

    path: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a conversation: a text or a picture, said by a role.

    ``is_target`` marks what the model learns to produce. ``role`` keeps the words of the source format
    (``human``/``gpt`` in LLaVA data), because templates match on them.
    """

    kind: SegmentKind
    role: str
    text: str = ""
    image: ImageRef | None = None
    is_target: bool = False
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training record. ``meta`` keeps what the source format held beside it (``meta['source']``: file and row)."""

    id: str
    segments: tuple[Segment, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The pictures in order of appearance."""
        return tuple(segment.image for segment in self.segments if segment.image is not None)

    def turns(self) -> list[tuple[str, str]]:
        """(role, text) per turn, pictures shown as ``<image>``; the LLaVA view of the record."""
        merged: dict[int, tuple[str, list[str]]] = {}
        for segment in self.segments:
            _, parts = merged.setdefault(segment.turn, (segment.role, []))
            parts.append(LLAVA_IMAGE if segment.kind == "image" else segment.text)
        return [(role, "".join(parts)) for _, (role, parts) in sorted(merged.items())]


@dataclass(frozen=True, slots=True, order=True)
class RowKey:
    """Where a row comes from: source file number, row number in it, and child number for generated rows.

    Gives output order, tie-breaks, quarantine ids and seeds, independent of batching and worker count.
    """

    file: int
    row: int
    child: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.row}" + (f":{self.child}" if self.child else "")
