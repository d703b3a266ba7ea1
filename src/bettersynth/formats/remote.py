"""Files that lie elsewhere (http, S3, HDFS, what fsspec knows): fetched whole before work starts, sent when done."""

from __future__ import annotations

import json
import os
import shutil
import urllib.parse
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError, MissingExtraError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t

_ARROW = ("s3", "gs", "gcs", "hdfs", "viewfs", "file")
_TIMEOUT_S = 60


def is_url(place: str) -> bool:
    """Whether a place is a URL."""
    return "://" in place


def fetch(place: str, folder: Path, settings: Any = None) -> Path:
    """A local path for a place. A URL is copied into ``folder`` unless the copy there is still the same version.

    Args:
        settings: an object with ``endpoint_url`` and ``aws_*`` attributes for S3, or None for the environment's.

    Raises:
        DataError: it cannot be read. MissingExtraError: fsspec is needed for this kind of URL.
    """
    if not is_url(place):
        return Path(place)
    target = folder / digest_bytes(place.encode())[:12]
    if place.startswith(("http://", "https://")):
        return _fetch_http(place, target)
    system, path = _filesystem(place, settings)
    return _fetch_tree(system, path, target, place)


def send(path: Path, place: str, settings: Any = None) -> None:
    """Copy a local file to a URL.

    Raises:
        DataError: it cannot be written there.
    """
    system, target = _filesystem(place, settings)
    try:
        with path.open("rb") as source, system.open_output_stream(target) as stream:
            shutil.copyfileobj(source, stream, 8 << 20)
    except OSError as error:
        raise DataError(t("cannot write the file"), where=place, got=str(error).splitlines()[0]) from error


def _fetch_http(place: str, target: Path) -> Path:
    import urllib.request  # with TLS it takes longer to import than all the rest of this package

    name = Path(urllib.parse.urlsplit(place).path).name or "data.jsonl"
    copy, mark = target / name, target / ".version"
    try:
        with urllib.request.urlopen(place, timeout=_TIMEOUT_S) as answer:
            version = json.dumps([answer.headers.get(key) for key in ("ETag", "Last-Modified", "Content-Length")])
            if copy.is_file() and mark.is_file() and mark.read_text() == version and "null" not in version[:6]:
                return copy
            mark.unlink(missing_ok=True)
            _copy(answer, copy)
    except (OSError, ValueError) as error:
        raise DataError(t("cannot read the data file"), where=place, got=str(error)) from error
    write_atomic(mark, version.encode())
    return copy


def _copy(source: Any, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    temp = copy.with_name(f".{copy.name}.{os.getpid()}")
    with temp.open("wb") as handle:
        shutil.copyfileobj(source, handle, 8 << 20)
    temp.replace(copy)


def _fetch_tree(system: Any, path: str, target: Path, place: str) -> Path:
    """One object, or every object below a prefix."""
    from pyarrow import fs

    try:
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise DataError(t("no such file or folder"), where=place)
        is_file = info.type == fs.FileType.File
        found = [info] if is_file else system.get_file_info(fs.FileSelector(path, recursive=True))
        for item in found:
            if item.type != fs.FileType.File:
                continue
            inside = item.base_name if is_file else item.path.removeprefix(path).lstrip("/")
            copy = target / inside
            mark = copy.with_name(f".{copy.name}.version")
            version = f"{item.size} {item.mtime_ns}"
            if copy.is_file() and mark.is_file() and mark.read_text() == version:
                continue
            with system.open_input_stream(item.path) as stream:
                _copy(stream, copy)
            write_atomic(mark, version.encode())
    except OSError as error:
        raise DataError(t("cannot read the data file"), where=place, got=str(error).splitlines()[0]) from error
    return target / Path(path).name if is_file else target


def _filesystem(place: str, settings: Any) -> tuple[Any, str]:
    """A pyarrow file system for a URL and the path inside it; kinds that pyarrow lacks go through fsspec."""
    from pyarrow import fs

    kind, _, rest = place.partition("://")
    if kind == "s3":
        return _s3(fs, settings), rest.partition("?")[0]
    if kind in _ARROW:
        system, path = fs.FileSystem.from_uri(place)
        return system, path
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("reading {kind} places", kind=kind), "remote", missing="fsspec") from error
    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(t("cannot read the data file"), where=place, got=str(error)) from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def _s3(fs: Any, settings: Any) -> Any:
    """S3 with the keys and endpoint given, else those of the environment (AWS_*, AWS_ENDPOINT_URL)."""

    def given(name: str) -> str | None:
        value = settings.get(name) if isinstance(settings, dict) else getattr(settings, name, None)
        return str(value) if value else None

    endpoint = given("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "access_key": given("aws_access_key_id"),
        "secret_key": given("aws_secret_access_key"),
        "session_token": given("aws_session_token"),
        "region": given("aws_region") or os.environ.get("AWS_REGION") or ("us-east-1" if endpoint else None),
    }
    if endpoint:
        parts = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme or "https"}
    return fs.S3FileSystem(**{key: value for key, value in options.items() if value is not None})
