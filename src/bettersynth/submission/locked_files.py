"""The files of a kit that the rules lock, as this version ships them, and the record of them that a kit carries.

Files made here are compared with what this version ships. An adopted kit has files of its own; they are compared with
the digests noted when it was adopted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from bettersynth import __version__
from bettersynth.config.submission import TRACKS, track_rules
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_bytes, digest_file
from bettersynth.core.lang import t
from bettersynth.submission.train_script import TRAIN_SCRIPT, TRAIN_SCRIPT_10K, read_script, render_script

RECORD = "toolkit/kit.json"
_SUFFIX = ".tmpl"
_NOTED = ("install.sh", "download.sh", "download_10k_baseline.sh")
_DEMO_BASES = {
    "gemma-2b-it": "gemma-tiny-it",
    "openclip-convnext-large-d-320-laion2B-s29B-b131K-ft-soup": "openclip-convnext-large-d-320-tiny",
    "clip-vit-large-patch14-336": "clip-vit-tiny",
}
"""Base models of the demo in the place of the challenge's: they come with the demo, so its kit lacks none."""
_DATA_SUFFIXES = (".json", ".jsonl")


def locked_files(track: str) -> dict[str, str]:
    """Path in the kit to text of every locked file, the train scripts included."""
    rules = track_rules(track)
    root = resources.files("bettersynth.submission").joinpath("locked")
    files = {}
    for name, item in _walk(root, ""):
        text = item.read_text(encoding="utf-8").replace("@SEED@", rules.seed).replace("@INSTRUCT@", rules.instruct)
        for real, tiny in _DEMO_BASES.items() if track == "demo" and name == "download.sh" else ():
            text = text.replace(real, tiny)
        files[name] = text
    files[TRAIN_SCRIPT] = render_script("online" if track == "10k" else track)
    if rules.is_challenge:
        files[TRAIN_SCRIPT_10K] = render_script("10k")
        baseline = TRACKS["10k"]
        template = root.joinpath("download.sh" + _SUFFIX).read_text(encoding="utf-8")
        files["download_10k_baseline.sh"] = template.replace("@SEED@", baseline.seed).replace(
            "@INSTRUCT@", baseline.instruct
        )
    return files


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.is_dir():
            yield from _walk(item, f"{prefix}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield prefix + item.name.removesuffix(_SUFFIX), item


@dataclass(frozen=True)
class KitRecord:
    """What a kit says of itself.

    Args:
        locked: path to digest of locked files; for train scripts the digest of what stands outside the editable block.
        data: path to digest of the fixed inputs (seed set, original questions, instruction data).
        is_adopted: the files are not ours, so only the digests noted at adoption can be compared.
    """

    track: str
    version: str = __version__
    is_adopted: bool = False
    locked: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


def write_record(kit: Path, record: KitRecord) -> None:
    """Write ``toolkit/kit.json``."""
    document = {
        "track": record.track,
        "version": record.version,
        "is_adopted": record.is_adopted,
        "locked": dict(record.locked),
        "data": dict(record.data),
    }
    write_atomic(kit / RECORD, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def read_record(kit: Path) -> KitRecord | None:
    """The kit's record, or None when there is none.

    Raises:
        DataError: the record is damaged.
    """
    path = kit / RECORD
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return KitRecord(raw["track"], raw["version"], bool(raw["is_adopted"]), dict(raw["locked"]), dict(raw["data"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(t("damaged kit record"), where=str(path), got=str(error)) from error


def locked_digest(name: str, text: bytes) -> str:
    """Digest by which a locked file is compared: for a train script without its editable block."""
    if name in (TRAIN_SCRIPT, TRAIN_SCRIPT_10K):
        return read_script(text.decode("utf-8", "replace")).locked_digest
    return digest_bytes(text.replace(b"\r\n", b"\n"))


def note_locked(kit: Path) -> dict[str, str]:
    """Digests of the locked files that a kit folder holds now."""
    names = [name for name in (*_NOTED, TRAIN_SCRIPT, TRAIN_SCRIPT_10K) if (kit / name).is_file()]
    training = kit / "toolkit" / "training"
    for folder in ("mgm", "preprocess", "scripts"):
        names += [
            path.relative_to(kit).as_posix()
            for path in sorted((training / folder).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        ]
    return {name: locked_digest(name, (kit / name).read_bytes()) for name in names}


def note_data(kit: Path) -> dict[str, str]:
    """Digests of the fixed inputs that are there now: seed sets below ``input``, instruction data of stage 2."""
    folders = [path for parent in ("input", "toolkit/training/data") for path in sorted((kit / parent).glob("*"))]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return {
        path.relative_to(kit).as_posix(): digest_file(path)
        for path in files
        if path.is_file() and path.suffix in _DATA_SUFFIXES
    }


def record_data(kit: Path) -> KitRecord:
    """Note the fixed inputs that arrived since the kit was made; what is already noted is never replaced.

    Raises:
        DataError: this folder is no kit, or its record is damaged.
    """
    record = read_record(kit)
    if record is None:
        raise DataError(
            t("no kit record here"), where=str(kit), hint=t("make one with: bettersynth init --adopt {kit}", kit=kit)
        )
    updated = KitRecord(
        record.track, record.version, record.is_adopted, record.locked, {**note_data(kit), **record.data}
    )
    write_record(kit, updated)
    return updated


def changed_locked(kit: Path, record: KitRecord) -> list[str]:
    """Reasons for every locked file that was changed, removed, or (below toolkit/training) added."""
    now = note_locked(kit)
    noted = dict(record.locked)
    if not record.is_adopted and record.version == __version__:
        # The kit's own note could be edited together with the file; what this version ships cannot.
        noted = {name: locked_digest(name, text.encode()) for name, text in locked_files(record.track).items()}
    reasons = []
    for name, digest in sorted(noted.items()):
        if name not in now:
            reasons.append(t("{name} is missing; it belongs to the kit", name=name))
        elif now[name] != digest:
            is_script = name in (TRAIN_SCRIPT, TRAIN_SCRIPT_10K)
            template = (
                "{name} was changed outside of the editable block" if is_script else "{name} was changed; it is locked"
            )
            reasons.append(t(template, name=name))
    added = sorted(name for name in now if name not in noted and name.startswith("toolkit/training/"))
    reasons += [t("{name} was added to toolkit/training, which is locked", name=name) for name in added]
    return reasons
