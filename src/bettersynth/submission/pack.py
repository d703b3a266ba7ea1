"""Build ``submit.zip`` of a track from a kit folder; the same folder always gives the same bytes."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bettersynth import __version__
from bettersynth.config.submission import TrackRules, packable_rules
from bettersynth.core.artifact import MANIFEST, Artifact, sync_folder, write_manifest
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.submission.check import DEMO_NOTE, LABEL, LOGS, README_NAMES, check_package, raise_findings
from bettersynth.submission.locked_files import KitRecord, changed_locked, read_record
from bettersynth.submission.rules import ADAPTER, FINAL, Findings
from bettersynth.submission.source import FolderSource
from bettersynth.submission.train_script import TRAIN_SCRIPT, TRAIN_SCRIPT_10K, ScriptReading, read_script
from bettersynth.submission.workspace import check_inputs, check_workspace

ZIP = "submit.zip"
_TIME = (1980, 1, 1, 0, 0, 0)
_STORED = {".safetensors", ".bin", ".png", ".jpg", ".jpeg", ".webp", ".gz", ".zip", ".xlsx"}
_SKIPPED_PARTS = {"__pycache__", ".ipynb_checkpoints", ".git", "node_modules"}
_DEMO_TEXT = """This zip was made by the bettersynth demo: tiny models in a procedural world.
It is no entry to the challenge. It shows the form of one.

本压缩包由 bettersynth 演示生成：程序生成的小世界和微型模型。
它不是比赛作品，只展示作品的格式。
"""
_WEIGHTS = {ADAPTER: ("mm_projector.bin",), FINAL: ("model*.safetensors", "*.json", "tokenizer*")}


def submit(workspace: Path, track: str, out: Path, *, exclude: tuple[str, ...] = ()) -> Artifact:
    """Check a kit folder against a track's rules and pack it.

    Args:
        workspace: the kit folder; ``output/train.sh`` says which experiment is submitted.
        track: ``online``, ``final``, ``10k`` or ``demo``.
        out: folder that gets ``submit.zip`` and a manifest.
        exclude: patterns of files in ``solution/`` that stay out.

    Returns:
        The submission; ``facts["notices"]`` holds what the user should know.

    Raises:
        RuleError: every reason why the rules refuse it; nothing is written.
        DataError: the folder is missing or cannot be written.
    """
    rules = packable_rules(track)
    if not workspace.is_dir():
        raise DataError(t("no such folder"), where=str(workspace), hint=t("make a kit with: bettersynth init"))
    findings = Findings()
    record = read_record(workspace)
    script = _script(workspace)
    source = FolderSource(_collect(workspace, rules, script, record, exclude, findings))
    adopted = _adopted_digest(record, rules)
    seen, name = check_package(source, rules, adopted_digest=adopted)
    findings.reasons.extend(seen.reasons)
    findings.notices.extend(seen.notices)
    if script is not None:
        check_workspace(workspace, script, rules, findings)
    else:
        _tell_absent(workspace, record, rules, findings)
    raise_findings(findings, rules, where=str(workspace))
    _write_zip(out / ZIP, source)
    facts = {
        "track": rules.name,
        "name": name,
        "num_files": len(source.names),
        "is_challenge_entry": rules.is_challenge,
        "notices": list(dict.fromkeys(findings.notices)),
    }
    parents = _parents(workspace, name)
    return write_manifest(out, kind="submission", facts=facts, files=[ZIP], parents=parents)


def _tell_absent(workspace: Path, record: KitRecord | None, rules: TrackRules, findings: Findings) -> None:
    """Without a train script no experiment is named; what every experiment needs is looked for all the same."""
    if record is None:
        findings.refuse("this folder has no kit record (toolkit/kit.json); make it with: bettersynth init --adopt DIR")
    else:
        findings.reasons.extend(changed_locked(workspace, record))
        check_inputs(workspace, record, rules, findings)
    output = workspace / "output"
    if not (output / "processed_data" / "processed_data.jsonl").is_file():
        findings.refuse("output/processed_data holds no data; make it with: bettersynth run data_only")
    for kind in (ADAPTER, FINAL):
        name = f"MGM-2B-{kind}"
        if not any(output.glob(f"training_dirs/{name}-*/{MANIFEST}")):
            findings.refuse("output/training_dirs holds no finished {name}; make it with: bettersynth run", name=name)
    if not any(output.glob(f"eval_results/*/*/scores/{MANIFEST}")):
        findings.refuse("output/eval_results holds no scores; make them with: bettersynth run eval_only")


def _script(workspace: Path) -> ScriptReading | None:
    path = workspace / "output" / "train.sh"
    return read_script(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _adopted_digest(record: KitRecord | None, rules: TrackRules) -> str | None:
    if record is None or not record.is_adopted:
        return None
    names = (TRAIN_SCRIPT_10K, TRAIN_SCRIPT) if rules.name == "10k" else (TRAIN_SCRIPT,)
    return next((record.locked[name] for name in names if name in record.locked), None)


def _parents(workspace: Path, name: str) -> dict[str, str]:
    parents = {}
    for role, kind in (("pretrain", ADAPTER), ("finetune", FINAL)):
        folder = workspace / "output" / "training_dirs" / f"MGM-2B-{kind}-{name}"
        parents[role] = Artifact.load(folder).digest
    return parents


def _collect(
    workspace: Path,
    rules: TrackRules,
    script: ScriptReading | None,
    record: KitRecord | None,
    exclude: tuple[str, ...],
    findings: Findings,
) -> dict[str, Path | bytes]:
    """Name in the zip to file (or bytes) for everything that belongs into the zip and is there."""
    files: dict[str, Path | bytes] = {}
    for path in _walk(workspace / "solution", findings, workspace):
        name = path.relative_to(workspace).as_posix()
        if not any(fnmatch.fnmatch(name.removeprefix("solution/"), pattern) for pattern in exclude):
            files[name] = path
    _add_readme(files, findings)
    if not rules.is_challenge:
        files[DEMO_NOTE] = _DEMO_TEXT.encode()
    train = workspace / "output" / "train.sh"
    if train.is_file():
        files["output/train.sh"] = train
    experiment = script.values.get("EXP_NAME", "") if script else ""
    if experiment:
        for kind in (ADAPTER, FINAL):
            _add_stage(files, workspace, f"output/training_dirs/MGM-2B-{kind}-{experiment}", kind, rules)
        results = workspace / "output" / "eval_results" / f"MGM-2B-{FINAL}-{experiment}"
        for path in _walk(results, findings, workspace):
            files[path.relative_to(workspace).as_posix()] = _without_run(path) if path.name == MANIFEST else path
    if rules.needs_data and script is not None:
        _add_data(files, workspace, script, findings)
    label = {"track": rules.name, "name": experiment, "version": __version__, "is_challenge_entry": rules.is_challenge}
    label |= {"is_adopted": bool(record and record.is_adopted)}
    adopted = _adopted_digest(record, rules)
    if adopted is not None:
        label["locked"] = adopted
    files[LABEL] = json.dumps(label, indent=1, sort_keys=True).encode() + b"\n"
    return files


def _walk(folder: Path, findings: Findings, workspace: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order, without caches and hidden files; links are refused."""
    for root, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name not in _SKIPPED_PARTS and not name.startswith("."))
        for name in sorted([*files, *[item for item in names if (Path(root) / item).is_symlink()]]):
            path = Path(root) / name
            if path.is_symlink():
                findings.refuse("{name} is a symbolic link", name=path.relative_to(workspace).as_posix())
            elif path.is_file() and not name.startswith(".") and path.suffix != ".pyc":
                yield path


def _add_readme(files: dict[str, Path | bytes], findings: Findings) -> None:
    """The packing rules name ``readme``; another spelling is packed under that name too."""
    there = {name.lower(): name for name in files if name.lower() in {f"solution/{item}" for item in README_NAMES}}
    if there and "solution/readme" not in files:
        spelling = there[sorted(there)[0]]
        files["solution/readme"] = files[spelling]
        findings.tell("{name} is packed as solution/readme too", name=spelling)


def _add_stage(files: dict[str, Path | bytes], workspace: Path, folder: str, kind: str, rules: TrackRules) -> None:
    there = workspace / folder
    logs = [there / log for log in LOGS[kind] if (there / log).is_file()]
    for log in LOGS[kind]:
        if logs:
            path = there / log
            files[f"{folder}/{log}"] = path if path.is_file() else logs[0]
    if (there / MANIFEST).is_file():
        files[f"{folder}/{MANIFEST}"] = _without_run(there / MANIFEST)
    if rules.needs_weights:
        for pattern in _WEIGHTS[kind]:
            for path in sorted(there.glob(pattern)):
                if path.is_file() and path.name not in (MANIFEST, "run.json"):
                    files[f"{folder}/{path.name}"] = path


def _without_run(path: Path) -> bytes:
    """A manifest without what varies between runs (times, machine, command); its digest does not cover that part."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        document["run"] = {}
    except (ValueError, TypeError):
        return path.read_bytes()
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True).encode()


def _add_data(files: dict[str, Path | bytes], workspace: Path, script: ScriptReading, findings: Findings) -> None:
    data = workspace / "toolkit" / script.values.get("PRETRAIN_DATASET", "")
    if not data.is_file():
        return
    files["output/processed_data/processed_data.jsonl"] = data
    if (data.parent / MANIFEST).is_file():
        files["output/processed_data/manifest.json"] = _without_run(data.parent / MANIFEST)
    for path in _walk(data.parent / "synthetic_images", findings, workspace):
        files[
            f"output/processed_data/synthetic_images/{path.relative_to(data.parent / 'synthetic_images').as_posix()}"
        ] = path


def _write_zip(path: Path, source: FolderSource) -> None:
    """Write the zip with sorted names, one fixed time and fixed permissions: temp file, fsync, rename."""
    temp = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temp = tempfile.mkstemp(prefix=".submit.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                for name in source.names:
                    _write_entry(archive, source, name)
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


def _write_entry(archive: zipfile.ZipFile, source: FolderSource, name: str) -> None:
    info = zipfile.ZipInfo(name, _TIME)
    info.create_system = 3
    info.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16 | 0o100000 << 16
    info.compress_type = zipfile.ZIP_STORED if Path(name).suffix.lower() in _STORED else zipfile.ZIP_DEFLATED
    with source.open(name) as stream, archive.open(info, "w", force_zip64=True) as entry:
        shutil.copyfileobj(stream, entry, 1 << 20)
