"""Make a kit folder, or take over an existing one. Nothing that is there is overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from bettersynth.config.submission import track_rules
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.submission.locked_files import (
    KitRecord,
    locked_digest,
    locked_files,
    note_data,
    note_locked,
    read_record,
    write_record,
)
from bettersynth.submission.train_script import TRAIN_SCRIPT, TRAIN_SCRIPT_10K

STRATEGIES = ("quality_focused", "advanced_data_processing", "diversity_focused")
FOLDERS = (
    "input",
    "output",
    "toolkit/training/data",
    "toolkit/training/model_zoo/LLM/gemma",
    "toolkit/training/model_zoo/OpenAI",
)
_SUFFIX = ".tmpl"
_RUNNABLE = (".sh", ".py")
_CAPTIONERS = {"demo": "toolkit/training/model_zoo/captioner/blip-captioner-tiny"}
_CAPTIONER = "models/blip2-opt-2.7b"
_CHALLENGE_ONLY = ("10k_quick_baseline.ipynb", "download_blip.py")


@dataclass(frozen=True)
class KitReport:
    """What was done to a folder: files written, files that were there and stay, and what an adopted one holds."""

    folder: Path
    track: str
    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def kit_files(track: str) -> dict[str, str]:
    """Path to text of every file of a track's kit, locked ones included.

    Raises:
        ConfigError: no such track.
    """
    rules = track_rules(track)
    values = {"TRACK": track, "SEED": rules.seed, "CAPTIONER": _CAPTIONERS.get(track, _CAPTIONER)}
    files = locked_files(track)
    for name, item in _walk(resources.files("bettersynth.kit").joinpath("template"), ""):
        if name in _CHALLENGE_ONLY and not rules.is_challenge:
            continue
        text = item.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        files[name] = text
    for name, item in strategy_files(track).items():
        files[f"solution/{name}"] = item.read_text(encoding="utf-8")
    return files


def walk_templates(folder: Traversable) -> Iterator[tuple[str, Traversable]]:
    """Path and file of every template below a folder."""
    return _walk(folder, "")


def strategy_files(track: str) -> dict[str, Traversable]:
    """The strategies' recipes by file name; the demo's own (``demo/NAME.yaml``, ``NAME_demo.yaml``) come first."""
    root = resources.files("bettersynth.experiment").joinpath("strategies")
    found = {}
    for name in STRATEGIES:
        places = [root.joinpath(f"{name}.yaml")]
        if track == "demo":
            places = [root.joinpath("demo", f"{name}.yaml"), root.joinpath(f"{name}_demo.yaml"), *places]
        item = next((place for place in places if place.is_file()), None)
        if item is not None:
            found[f"{name}.yaml"] = item
    return found


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.is_dir():
            yield from _walk(item, f"{prefix}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield prefix + item.name.removesuffix(_SUFFIX), item


def init(folder: Path, track: str = "online") -> KitReport:
    """Make a kit folder for a track; run it again and only what is missing is written.

    Raises:
        ConfigError: no such track, or the folder is a kit of another track or of somebody else.
        DataError: the folder cannot be written.
    """
    files = kit_files(track)
    record = read_record(folder)
    if record is not None and record.track != track:
        raise ConfigError(
            t("this folder is a kit of another track"),
            where=str(folder),
            got=record.track,
            expected=track,
            hint=t("choose another folder"),
        )
    if record is None and (folder / TRAIN_SCRIPT).is_file():
        raise ConfigError(
            t("this folder already holds a kit that was not made here"),
            where=str(folder),
            hint=t("take it over with: bettersynth init --adopt {folder}", folder=folder),
        )
    written, kept = _write(folder, files)
    _make_folders(folder)
    locked = {name: locked_digest(name, text.encode()) for name, text in locked_files(track).items()}
    data = {**note_data(folder), **(record.data if record else {})}
    write_record(folder, KitRecord(track, locked=record.locked if record else locked, data=data))
    return KitReport(folder, track, tuple(written), tuple(kept), missing=_missing(folder, track))


def _write(folder: Path, files: Mapping[str, str]) -> tuple[list[str], list[str]]:
    written, kept = [], []
    for name, text in sorted(files.items()):
        path = folder / name
        if path.exists() or path.is_symlink():
            kept.append(name)
            continue
        write_atomic(path, text.encode())
        if path.suffix in _RUNNABLE:
            os.chmod(path, 0o755)
        written.append(name)
    return written, kept


def _make_folders(folder: Path) -> None:
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _missing(folder: Path, track: str) -> tuple[str, ...]:
    rules = track_rules(track)
    wanted = (
        rules.seed_file,
        rules.questions_file,
        rules.instruct_file,
        "toolkit/eval/textvqa",
        "toolkit/eval/mmbench",
    )
    return tuple(name for name in wanted if not (folder / name).exists())


def adopt(folder: Path, track: str | None = None) -> KitReport:
    """Take over an existing kit folder: note its locked files and inputs, add the scripts that it lacks.

    Its own files, checkpoints, logs and results stay as they are.

    Args:
        track: guessed from the seed sets in ``input`` when not given.

    Raises:
        ConfigError: this is no kit folder, or the track is unknown.
    """
    if not folder.is_dir():
        hint = t("make a new one with: bettersynth init {folder}", folder=folder)
        raise ConfigError(t("no such folder"), where="--adopt", got=folder, hint=hint)
    if not (folder / "toolkit").is_dir():
        raise ConfigError(
            t("this is no kit folder"),
            where=str(folder),
            expected=t("a folder with {name}", name="toolkit/"),
            hint=t("make a new one with: bettersynth init {folder}", folder=folder),
        )
    record = read_record(folder)
    track = track or (record.track if record else _guess_track(folder))
    files = {name: text for name, text in kit_files(track).items() if _may_add(name)}
    written, kept = _write(folder, files)
    _make_folders(folder)
    if record is None:
        noted = note_locked(folder)
        record = KitRecord(track, is_adopted=True, locked=noted, data=note_data(folder))
        write_record(folder, record)
        written.append("toolkit/kit.json")
    return KitReport(folder, track, tuple(written), tuple(kept), _found(folder), _missing(folder, track))


def _may_add(name: str) -> bool:
    """Scripts beside the kit's own: the locked parts and the documents of an adopted kit stay its own."""
    return name.startswith(("solution/", "toolkit/eval/")) and not name.lower().startswith("solution/readme")


def _guess_track(folder: Path) -> str:
    seeds = {path.name for path in (folder / "input").glob("pretrain_stage_1*") if path.is_dir()}
    if "pretrain_stage_1_demo" in seeds:
        return "demo"
    return "10k" if seeds == {"pretrain_stage_1_10k"} else "online"


def _found(folder: Path) -> dict[str, tuple[str, ...]]:
    patterns = {
        "train scripts": (TRAIN_SCRIPT, TRAIN_SCRIPT_10K),
        "training code": ("toolkit/training/mgm",),
        "data-juicer": ("toolkit/data-juicer",),
        "seed sets": ("input/*/stage_1.json", "input/*/mgm_pretrain*.jsonl"),
        "instruction data": ("toolkit/training/data/*/mgm_instruction*.json",),
        "base models": ("toolkit/training/model_zoo/*/*", "models/*"),
        "evaluation data": ("toolkit/eval/textvqa", "toolkit/eval/mmbench"),
        "processed data": ("output/*/*.jsonl",),
        "checkpoints": ("output/training_dirs/*",),
        "logs": ("output/training_dirs/*/*.log",),
        "results": ("output/eval_results/*",),
    }
    return {
        title: tuple(path.relative_to(folder).as_posix() for pattern in forms for path in sorted(folder.glob(pattern)))
        for title, forms in patterns.items()
    }
