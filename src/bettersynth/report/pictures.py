"""Pictures inside the page as data URIs, within a size budget that is shared fairly between galleries."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bettersynth.core.errors import BetterSynthError
from bettersynth.core.record import Picture

MAX_TOTAL_BYTES = 3_000_000
"""Of picture files in a page; base64 makes a third more of it, so that a page stays under 4 MB or so."""
MAX_RAW_BYTES = 64_000
MAX_PER_GALLERY = 24
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}

Thumbnailer = Callable[[Path], bytes]


def media_type(data: bytes) -> str | None:
    """The type of a picture file by its first bytes; None when a page should not show it."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES.items() if data.startswith(signature)), None)


class PictureBook:
    """Hands out data URIs until the budget is spent.

    Args:
        root: folder that relative picture paths start from.
        thumbnail: makes a small copy of a file (``media.thumbnail``); without one, files up to 64 kB are embedded as
            they are, and larger ones are left out.
    """

    def __init__(self, root: Path, thumbnail: Thumbnailer | None = None, max_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._root = root
        self._thumbnail = thumbnail
        self._left = max_bytes
        self._known: dict[str, str] = {}

    def uri(self, path: str) -> str | None:
        """The picture as a data URI, or None when it is missing, is no picture, or no longer fits."""
        if not path:
            return None
        if path not in self._known:
            data = self._read(self._root / path)
            kind = media_type(data) if data else None
            fits = kind is not None and len(data) <= self._left
            if fits:
                self._left -= len(data)
            self._known[path] = f"data:{kind};base64,{base64.b64encode(data).decode()}" if fits else ""
        else:
            # The same picture again costs its bytes again: the page holds it twice.
            cost = len(self._known[path]) * 3 // 4
            if cost > self._left:
                return None
            self._left -= cost
        return self._known[path] or None

    def shown(self, path: str) -> str:
        """How the page calls a picture: without the folders of the machine it was made on."""
        full = Path(path)
        if not full.is_absolute():
            return path
        return full.relative_to(self._root).as_posix() if full.is_relative_to(self._root) else full.name

    def _read(self, path: Path) -> bytes:
        try:
            if self._thumbnail is not None:
                return self._thumbnail(path)
            return path.read_bytes() if path.stat().st_size <= MAX_RAW_BYTES else b""
        except (OSError, BetterSynthError):
            # A damaged picture is exactly what a gallery of quarantined rows shows: its place stays, empty.
            return b""


def fill(book: PictureBook, galleries: Mapping[str, Sequence[Picture]]) -> dict[str, list[tuple[Picture, str | None]]]:
    """Data URIs for every gallery, one picture of each in turn, so that none starves the others.

    The pictures' paths become the names that the page shows.
    """
    chosen: dict[str, list[tuple[Picture, str | None]]] = {name: [] for name in galleries}
    for position in range(MAX_PER_GALLERY):
        for name, pictures in galleries.items():
            if position < len(pictures):
                picture = pictures[position]
                uri = book.uri(picture.path)
                chosen[name].append((replace(picture, path=book.shown(picture.path)), uri))
    return chosen
