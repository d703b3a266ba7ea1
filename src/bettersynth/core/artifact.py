"""A stage's result: a folder whose manifest is written last, so that its presence means the folder is whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bettersynth import __version__
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t

MANIFEST = "manifest.json"
ArtifactKind = Literal["dataset", "checkpoint", "predictions", "scores", "comparison", "report", "submission", "world"]


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one: temp, fsync, rename, fsync folder.

    Raises:
        DataError: when the folder is read-only or the disk is full; the temporary file is removed.
    """
    temp = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temp = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temp, 0o644)
        os.replace(temp, path)
        sync_folder(path.parent)
    except OSError as error:
        if temp and os.path.exists(temp):
            os.unlink(temp)
        raise DataError(
            t("cannot write the file"),
            where=str(path),
            got=error.strerror or str(error),
            hint=t("choose a writable output folder with free space"),
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Artifact:
    """A finished folder. ``digest`` covers kind, facts, parents and the digests of its files, not its place or time."""

    folder: Path
    kind: str
    digest: str
    facts: Mapping[str, Any]
    parents: Mapping[str, str]
    files: Mapping[str, str]
    run: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def exists(folder: Path) -> bool:
        """True when the folder holds a manifest, that is, when it is complete."""
        return (folder / MANIFEST).is_file()

    @classmethod
    def load(cls, folder: Path, *, kind: str | None = None) -> Artifact:
        """Read a manifest.

        Raises:
            DataError: no manifest (missing or unfinished folder), a damaged one, or another kind than asked for.
        """
        path = folder / MANIFEST
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            artifact = cls(folder, raw["kind"], raw["digest"], raw["facts"], raw["parents"], raw["files"], raw["run"])
        except FileNotFoundError as error:
            raise DataError(
                t("no finished {kind} here", kind=kind or "artifact"),
                where=str(folder),
                expected=t("a folder with {name}", name=MANIFEST),
                hint=t("run the command that makes it again; it continues where it stopped"),
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(t("damaged manifest"), where=str(path), got=str(error)) from error
        if kind is not None and artifact.kind != kind:
            raise DataError(t("wrong kind of folder"), where=str(folder), got=artifact.kind, expected=kind)
        return artifact

    def verify(self) -> list[str]:
        """Names of files that are missing or changed since the manifest was written."""
        return [
            name
            for name, digest in self.files.items()
            if not (self.folder / name).is_file() or digest_file(self.folder / name) != digest
        ]


def write_manifest(
    folder: Path,
    *,
    kind: ArtifactKind,
    facts: Mapping[str, Any],
    files: list[str],
    parents: Mapping[str, str] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Artifact:
    """Finish a folder: digest the named files and write the manifest last.

    Args:
        facts: deterministic facts (counts, settings); part of the digest.
        parents: role to digest of the artifacts it was made from; part of the digest.
        run: what varies between runs (command, seconds, machine); recorded, not part of the digest.
    """
    digests = {name: digest_file(folder / name) for name in sorted(files)}
    artifact = Artifact(folder, kind, "", dict(facts), dict(parents or {}), digests, dict(run or {}))
    body = {"kind": kind, "facts": artifact.facts, "parents": artifact.parents, "files": digests}
    document = {"version": __version__, **body, "digest": digest_json(body), "run": artifact.run}
    write_atomic(folder / MANIFEST, json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True).encode())
    return replace(artifact, digest=str(document["digest"]))
