"""Make one text of all LaTeX files in an archive."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.ops._context import OpContext
from bettersynth.ops._fields import field_of_every_row
from bettersynth.ops.base import KEY, RECORD, TEXT, Batch, Mapper, with_column

_TARS, _ZIPS = (".tar", ".tar.gz", ".tgz"), (".zip",)
_ENDING = ".tex"
_Entry = tuple[str, int, Callable[[], bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatexMergeTexMapper(Mapper):
    """The ``.tex`` files of the archive that a field names, in the archive's order, as in Data-Juicer.

    Nothing is unpacked to the disk. An archive that is missing, damaged or of another kind sets its row aside; there
    the row gets an empty text. Relative paths start from the folder of the pictures.

    Args:
        compressed_file_key: field with the path of a ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip``.
        separator: what stands between two files.
        max_file_size: bytes above which a file is left out and counted in the report; None or 0 for no limit.
        max_total_size: bytes above which the files that follow are left out; None or 0 for no limit.
    """

    reads: ClassVar[tuple[str, ...]] = (RECORD, TEXT)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)

    compressed_file_key: str = "compressed_file"
    separator: str = "\n\n"
    max_file_size: int | None = 50 << 20
    max_total_size: int | None = 100 << 20

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """The texts of the archives."""
        files = batch.column(KEY[0]).to_pylist()
        texts = []
        for file, name in zip(files, field_of_every_row(batch, self.compressed_file_key), strict=True):
            if not isinstance(name, str):
                raise DataError(t("no archive named in field '{key}'", key=self.compressed_file_key), got=str(name))
            texts.append(self.separator.join(self._read(ctx.image_path(file, name), ctx)))
        return with_column(batch, TEXT, pa.array(texts, pa.string()))

    def _read(self, path: Path, ctx: OpContext) -> list[str]:
        found, total = [], 0
        try:
            for name, size, read in _entries(path):
                if not name.endswith(_ENDING):
                    continue
                if self.max_file_size and size > self.max_file_size:
                    ctx.flags["file of an archive left out: too large"] += 1
                    continue
                total += size
                if self.max_total_size and total > self.max_total_size:
                    ctx.flags["rest of an archive left out: too large"] += 1
                    break
                found.append(read().decode("utf-8", "replace"))
        except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataError(t("cannot read the archive"), where=str(path), got=str(error)) from error
        return found


def _entries(path: Path) -> Iterator[_Entry]:
    """(name, size in bytes, how to read it) of the files of an archive, one at a time."""
    name = path.name.lower()
    if name.endswith(_ZIPS):
        with zipfile.ZipFile(path) as packed:
            for info in packed.infolist():
                yield info.filename, info.file_size, lambda info=info: packed.read(info)  # type: ignore[misc]
    elif name.endswith(_TARS):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, member.size, lambda member=member: _content(tar, member)  # type: ignore[misc]
    else:
        raise DataError(t("not an archive that can be read"), where=str(path), expected=", ".join((*_TARS, *_ZIPS)))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    handle = tar.extractfile(member)
    return b"" if handle is None else handle.read()
