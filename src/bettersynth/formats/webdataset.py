"""WebDataset tar files: members with the same name up to the first dot are one sample."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.formats.pictures import PictureFolder

KEY = "__key__"
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_TEXTS = ("txt", "text", "caption")


def read_webdataset(
    path: Path, pictures: PictureFolder, *, text_key: str = "text", image_key: str = "images"
) -> Iterator[dict[str, Any]]:
    """Samples of a tar file as rows: ``.json`` gives the fields, ``.txt`` the text, pictures are written out.

    Samples of which several pictures were packed as ``KEY.0.jpg``, ``KEY.1.jpg`` get them in that order.

    Raises:
        DataError: not a tar file, or a member whose JSON cannot be read.
    """
    row: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if row and row[KEY] != key:
                    yield _finish(row, image_key)
                    row = {}
                row.setdefault(KEY, key)
                handle = archive.extractfile(member)
                data = handle.read() if handle is not None else b""
                _take(row, key, ending.lower(), data, pictures, text_key, image_key)
    except (OSError, tarfile.TarError, orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error)) from error
    if row:
        yield _finish(row, image_key)


def _take(
    row: dict[str, Any], key: str, ending: str, data: bytes, pictures: PictureFolder, text_key: str, image_key: str
) -> None:
    if ending == "json":
        record = orjson.loads(data)
        for name, value in record.items() if isinstance(record, dict) else ():
            if name != image_key or not row.get("__pictures__"):
                row.setdefault(name, value)
    elif ending in _TEXTS:
        row[text_key] = data.decode("utf-8")
    elif f".{ending}".endswith(_PICTURES):
        place = pictures.save(f"{key}.{ending}".rpartition(".")[0], data, "." + ending.rpartition(".")[2])
        row.setdefault("__pictures__", []).append(place)
    else:
        row.setdefault(ending, data.decode("utf-8", "replace"))


def _finish(row: dict[str, Any], image_key: str) -> dict[str, Any]:
    found = row.pop("__pictures__", None)
    if found is not None:
        row[image_key] = found
    if "id" not in row:
        row["id"] = row[KEY]
    del row[KEY]
    return row


class WebDatasetWriter:
    """Writes rows as samples: ``KEY.json`` with all fields, ``KEY.txt`` with the text, then the pictures.

    The same rows give the same bytes: members carry no times or owners.
    """

    def __init__(self, handle: BinaryIO, *, text_key: str, image_key: str) -> None:
        self._archive = tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._text_key, self._image_key = text_key, image_key
        self._count = 0

    def write(self, row: Mapping[str, Any], images: list[Path]) -> None:
        """Add one sample; ``images`` are the places of its pictures.

        Raises:
            DataError: a picture is not there.
        """
        key = f"{self._count:08d}"
        self._count += 1
        self._add(f"{key}.json", orjson.dumps(dict(row)))
        if isinstance(row.get(self._text_key), str):
            self._add(f"{key}.txt", row[self._text_key].encode("utf-8", "surrogatepass"))
        for place, path in enumerate(images):
            middle = f".{place}" if len(images) > 1 else ""
            try:
                self._add(f"{key}{middle}{path.suffix.lower() or '.bin'}", path.read_bytes())
            except FileNotFoundError as error:
                raise DataError(t("image not found"), where=str(path)) from error

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        self._archive.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive; the file itself stays open."""
        self._archive.close()
