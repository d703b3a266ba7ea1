"""A package to be checked: named files in a folder, or the entries of a zip that are safe to read."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

MAX_ENTRIES = 200_000
MAX_TOTAL_BYTES = 64 << 30
MAX_RATIO = 400
"""Of unpacked to packed size, for entries above 64 MiB; text packs at most to a hundredth or so."""
MAX_READ_BYTES = 256 << 20
_RATIO_FROM_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class Source(Protocol):
    """Files by their name in the package."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A stream of one file."""
        ...


class FolderSource:
    """Files on disk under the names they will have in the package."""

    def __init__(self, files: Mapping[str, Path | bytes]) -> None:
        self.files = dict(files)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self.files))

    def open(self, name: str) -> IO[bytes]:
        """A stream of one file."""
        import io

        content = self.files[name]
        return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


class ZipSource:
    """The entries of a zip that passed :func:`unsafe_entries`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = {info.filename: info for info in archive.infolist() if not info.is_dir()}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._entries))

    def open(self, name: str) -> IO[bytes]:
        """A stream of one entry."""
        return self._archive.open(self._entries[name])


def read(source: Source, name: str, *, limit: int = MAX_READ_BYTES) -> bytes:
    """The bytes of one file.

    Raises:
        DataError: it is larger than ``limit``.
    """
    with source.open(name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise DataError(t("file too large to check"), where=name, got=f"> {limit}")
    return data


def digest(source: Source, name: str) -> str:
    """Digest of one file, as :func:`bettersynth.core.fingerprint.digest_file` makes it, read in pieces."""
    state = hashlib.blake2b(digest_size=16)
    with source.open(name) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def unsafe_entries(archive: zipfile.ZipFile) -> list[str]:
    """Reasons why a zip may not be unpacked or trusted: names that leave its folder, links, bombs, doubles."""
    reasons = []
    seen: set[str] = set()
    total = 0
    for info in archive.infolist():
        name = info.filename
        problem = _name_problem(info.orig_filename) or _name_problem(name)
        if problem:
            reasons.append(problem)
        if stat.S_ISLNK(info.external_attr >> 16):
            reasons.append(t("{name} is a symbolic link", name=name))
        if info.flag_bits & 0x1:
            reasons.append(t("{name} is encrypted", name=name))
        folded = name.rstrip("/").casefold()
        if folded in seen:
            reasons.append(t("{name} is in the zip twice", name=name))
        seen.add(folded)
        total += info.file_size
        if info.file_size > _RATIO_FROM_BYTES and info.file_size > MAX_RATIO * max(1, info.compress_size):
            reasons.append(
                t(
                    "{name} unpacks to {size} bytes from {packed}: a zip bomb",
                    name=name,
                    size=info.file_size,
                    packed=info.compress_size,
                )
            )
    if len(seen) > MAX_ENTRIES:
        reasons.append(t("{n} entries, more than {limit}", n=len(seen), limit=MAX_ENTRIES))
    if total > MAX_TOTAL_BYTES:
        reasons.append(t("unpacks to {size} bytes, more than {limit}", size=total, limit=MAX_TOTAL_BYTES))
    return reasons


def _name_problem(name: str) -> str | None:
    path = PurePosixPath(name)
    if not name or "\x00" in name or any(ord(char) < 32 for char in name):
        return t("{name} is no file name", name=repr(name))
    if "\\" in name or (len(name) > 1 and name[1] == ":"):
        return t("{name} is not a portable path", name=name)
    if path.is_absolute():
        return t("{name} is an absolute path", name=name)
    if ".." in path.parts:
        return t("{name} leaves the folder of the zip", name=name)
    return None


def _reason(error: Exception) -> str:
    """Python's words for what everybody meets, in ours."""
    return t("no zip at all, or its end is missing") if "not a zip file" in str(error) else str(error)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for checking.

    Raises:
        DataError: missing, no zip, or damaged (also when that shows only while an entry is read).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # A truncated zip may end in the directory of a zip inside it (an .xlsx, say) and would open as that one.
            if archive.infolist() and min(info.header_offset for info in archive.infolist()) > 0:
                raise zipfile.BadZipFile(t("it does not begin with its first entry"))
            yield archive
    except FileNotFoundError as error:
        raise DataError(t("no such file"), where=str(path), hint=t("make it with: bettersynth submit")) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise DataError(
            t("not a whole zip file"),
            where=str(path),
            got=_reason(error),
            hint=t("pack it again with: bettersynth submit"),
        ) from error
