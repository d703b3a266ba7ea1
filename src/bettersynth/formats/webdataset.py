"""WebDataset tar files: members with the same name up to the first dot are one sample."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.formats.pictures import PictureFolder, suffix_of

KEY = "__key__"
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_NUMBER = re.compile("[0-9]+")
TEXTS = ("txt", "text", "caption")
HIDDEN, LINK, NO_ENDING = "hidden", "link", "no ending"
"""What is counted of members that have no ending of their own to be counted by."""


def read_webdataset(
    path: Path,
    pictures: PictureFolder,
    *,
    text_key: str = "text",
    image_key: str = "images",
    left_out: Counter[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Samples of a tar file as rows: ``.json`` gives the fields, ``.txt`` the text, pictures are written out.

    Samples of which several pictures were packed as ``KEY.0.jpg``, ``KEY.1.jpg`` get them in the order of their
    numbers (2 before 10), whatever their order in the archive. A member with another ending (``.cls``) becomes the
    field of that name if it is text.

    Args:
        left_out: counts the members that no row can hold, by their endings: links, hidden files, those without an
            ending, and those of another ending that are neither text nor a picture.

    Raises:
        DataError: not a tar file, a member whose JSON cannot be read, a file packed twice, or a sample whose files do
            not follow one another.
    """
    seen: set[str] = set()
    left_out = Counter() if left_out is None else left_out
    for key, members in read_samples(path, left_out):
        endings = [ending for ending, _ in members]
        twice = next((ending for ending in endings if endings.count(ending) > 1), None)
        if key in seen or twice is not None:
            name = key if twice is None else f"{key}.{twice}"
            fix = t("the files of a sample follow one another, as with: tar --sort=name")
            raise DataError(t("comes again"), where=f"{path}: {name}", hint=fix)
        seen.add(key)
        row: dict[str, Any] = {}
        for ending, data in members:
            if data is None or not ending:
                left_out[NO_ENDING if data is not None else LINK] += 1
                continue
            row.setdefault(KEY, key)
            try:
                if not _take(row, key, ending, data, pictures, text_key, image_key):
                    left_out[f".{ending}"] += 1
            except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
                where = f"{path}: {key}.{ending}"
                raise DataError(t("cannot read the data file"), where=where, got=str(error)) from error
        if not row:
            continue
        yield _finish(row, image_key)


def left_out_note(counts: Mapping[str, int]) -> str:
    """One sentence about the members that were left out: how many, and of which endings."""
    names = {HIDDEN: t("hidden files"), LINK: t("links"), NO_ENDING: t("without an ending")}
    kinds = ", ".join(f"{names.get(kind, kind)} {count}" for kind, count in sorted(counts.items()))
    return t(
        "{n} members of archives are no known part of a sample and were left out: {kinds}",
        n=sum(counts.values()),
        kinds=kinds,
    )


def read_samples(path: Path, left_out: Counter[str]) -> Iterator[tuple[str, list[tuple[str, bytes | None]]]]:
    """Samples of a tar file, each as its key and its members in order: endings (``json``, ``0.png``) and bytes.

    A member that is a link has no bytes: links are never followed.

    Args:
        left_out: counts hidden files, which belong to no sample.

    Raises:
        DataError: not a tar file, or a part of one.
    """
    for key, members in groupby(_members(path, left_out), key=itemgetter(0)):
        yield key, [(ending, data) for _, ending, data in members]


def _members(path: Path, left_out: Counter[str]) -> Iterator[tuple[str, str, bytes | None]]:
    """Key, ending in small letters and bytes of files and links; hidden files (``._0001.json``) have no key."""
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if not (member.isfile() or member.issym() or member.islnk()):
                    continue
                if not stem:
                    left_out[HIDDEN] += 1
                    continue
                handle = archive.extractfile(member) if member.isfile() else None
                key = f"{folder}/{stem}" if folder else stem
                yield key, ending.lower(), handle.read() if handle is not None else None
            is_whole = _ends(archive)
    except (OSError, tarfile.TarError) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error)) from error
    if not is_whole:
        raise DataError(
            t("the archive is cut off, or goes on after its end"),
            where=str(path),
            hint=t("fetch or pack it again; several archives are several files"),
        )


def _ends(archive: tarfile.TarFile) -> bool:
    """Whether the last member is followed by the mark of the end and nothing else: ``tarfile`` does not tell."""
    stream = archive.fileobj
    assert stream is not None
    if stream.tell() != archive.offset + tarfile.BLOCKSIZE:
        return False
    while rest := stream.read(1 << 20):
        if rest.strip(b"\0"):
            return False
    return True


def _take(
    row: dict[str, Any], key: str, ending: str, data: bytes, pictures: PictureFolder, text_key: str, image_key: str
) -> bool:
    """Put a member into its row; False if no row can hold it."""
    if ending == "json":
        record = orjson.loads(data)
        for name, value in record.items() if isinstance(record, dict) else [(ending, record)]:
            if name != image_key or not row.get("__pictures__"):
                row.setdefault(name, value)
    elif ending in TEXTS:
        row[text_key] = data.decode("utf-8")
    elif f".{ending}".endswith(PICTURES):
        _add_picture(row, pictures, key, ending, data, "." + ending.rpartition(".")[2])
    else:
        try:
            row.setdefault(ending, data.decode("utf-8"))
        except UnicodeDecodeError:
            if suffix_of(data) == ".bin":
                return False
            _add_picture(row, pictures, key, ending, data, suffix_of(data))  # a picture by another name
    return True


def _add_picture(row: dict[str, Any], pictures: PictureFolder, key: str, ending: str, data: bytes, suffix: str) -> None:
    place = pictures.save(f"{key}.{ending}".rpartition(".")[0], data, suffix)
    row.setdefault("__pictures__", []).append((ending, place))


def _finish(row: dict[str, Any], image_key: str) -> dict[str, Any]:
    found = row.pop("__pictures__", None)
    if found is not None:
        if len({_NUMBER.sub("#", ending) for ending, _ in found}) == 1:  # told apart by numbers alone
            found.sort(key=lambda item: [int(number) for number in _NUMBER.findall(item[0])])
        row[image_key] = [place for _, place in found]
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
