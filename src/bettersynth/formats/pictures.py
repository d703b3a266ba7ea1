"""Pictures that travel inside a data file: written out once, so that every later step meets plain paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t

_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


def suffix_of(data: bytes) -> str:
    """The usual file ending for encoded picture bytes; ``.bin`` when they are no known picture.

    >>> suffix_of(b"GIF89a...")
    '.gif'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _MAGIC if data.startswith(magic)), ".bin")


@dataclass(frozen=True)
class PictureFolder:
    """Where pictures of one input file go: ``root/name``; rows then name them ``name/FILE``, relative to ``root``."""

    root: Path
    name: str
    beside: Path = Path()
    """Folder of the data file: pictures that a row with encoded ones names by path lie there."""

    def save(self, stem: str, data: bytes, suffix: str = "") -> str:
        """Write one picture (whole or not at all) and return its path as rows write it.

        A stem that is no plain file name is told apart from one that looks like it by a part of its digest.
        """
        clean = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)
        if clean != stem:
            clean = f"{clean}-{digest_bytes(stem.encode('utf-8', 'surrogatepass'))[:8]}"
        path = self.root / self.name / f"{clean}{suffix or suffix_of(data)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = path.with_name(f".{path.name}.{os.getpid()}")
        temp.write_bytes(data)
        temp.replace(path)
        return f"{self.name}/{path.name}"

    def unpack(self, row: dict[str, Any], number: int, *, image_key: str, bytes_key: str) -> dict[str, Any]:
        """The row with encoded pictures replaced by paths: a column of bytes, or ``{"bytes", "path"}`` entries.

        Paths of pictures that are not inside the file become whole ones: others may make ``root`` the rows' folder.
        """
        found = row.get(bytes_key)
        if found is not None and _holds_bytes(found):
            listed = found if isinstance(found, list) else [found]
            names = row.get(image_key) if isinstance(row.get(image_key), list) else []
            row[image_key] = [
                self.save(f"{number:08d}-{place}", data) if data else self._there(names, place)
                for place, data in enumerate(listed)
            ]
            del row[bytes_key]
        elif bytes_key in row and found is None and isinstance(row.get(image_key), list):
            row[image_key] = [self._whole(name) for name in row[image_key]]
        entries = row.get(image_key)
        if isinstance(entries, Mapping) or (isinstance(entries, list) and any(isinstance(e, Mapping) for e in entries)):
            row[image_key] = list(self._entries([entries] if isinstance(entries, Mapping) else entries, number))
        return row

    def _there(self, names: list[Any], place: int) -> str:
        return self._whole(names[place]) if place < len(names) else ""

    def _whole(self, name: Any) -> Any:
        return str((self.beside / name).resolve()) if isinstance(name, str) and name else name

    def _entries(self, entries: Iterable[Any], number: int) -> Iterable[str]:
        for place, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                yield self._whole(entry)
            elif entry.get("bytes"):
                yield self.save(f"{number:08d}-{place}", entry["bytes"])
            else:
                yield self._whole(str(entry.get("path") or ""))


def picture_cache(file: Path) -> Path:
    """Where :func:`keep_picture` puts what a file holds: ``pictures`` of BETTERSYNTH_CACHE, or a folder beside it."""
    shared = os.environ.get("BETTERSYNTH_CACHE")
    return (Path(shared) / "pictures" if shared else file.parent / ".pictures").absolute()


def keep_picture(folder: Path, data: bytes) -> Path:
    """Write a picture under the digest of its bytes, unless it is there; no name of a data file becomes a path.

    A file that a power cut left damaged is written anew: only the same bytes count as there.

    Raises:
        DataError: the folder cannot be written to, or the disk is full.
    """
    digest = digest_bytes(data)
    path = folder / digest[:2] / f"{digest}{suffix_of(data)}"
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return path
    try:
        write_atomic(path, data)
    except DataError as error:
        error.hint = t("name a folder with free space: BETTERSYNTH_CACHE=FOLDER")
        raise
    return path


def _holds_bytes(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, list) and any(isinstance(item, bytes) for item in value))
