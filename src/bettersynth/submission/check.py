"""Check a submission package against its track's rules: the files about to be packed, or an existing zip."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from bettersynth.config.submission import TrackRules, packable_rules
from bettersynth.core.errors import ConfigError, RuleError
from bettersynth.core.lang import t
from bettersynth.submission.locked_files import locked_digest, locked_files
from bettersynth.submission.rules import (
    ADAPTER,
    FINAL,
    Findings,
    Manifest,
    changed_files,
    check_results,
    check_training,
    read_manifest,
)
from bettersynth.submission.source import Source, ZipSource, open_zip, read, unsafe_entries
from bettersynth.submission.train_script import TRAIN_SCRIPT, TRAIN_SCRIPT_10K, ScriptReading, read_script
from bettersynth.train.preset import load_preset

README_NAMES = ("readme", "readme.txt", "readme.md")
LOGS = {ADAPTER: ("pretrain.log",), FINAL: ("finetuning.log", "finetune.log")}
LABEL = "output/submission.json"
DEMO_NOTE = "solution/NOT_A_CHALLENGE_ENTRY.txt"

_ROOTS = (
    "mnt|root|home|Users|data|workspace|workspaces|work|tmp|opt|var|srv|media|Volumes|private|autodl-tmp"
    "|cpfs|nas|oss|etc|usr/local|content|kaggle"
)
_ABSOLUTE = re.compile(rf"(?<![\w.~$}}\])/:])(?:/(?:{_ROOTS})(?:/[^\s'\"<>|:;,)]*)?|[A-Za-z]:\\[^\s'\"]*|~/[^\s'\"]+)")
_SCRIPT_SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".ipynb", ".bash"}
_TEXT_LIMIT = 4 << 20


@dataclass(frozen=True)
class CheckReport:
    """A package that passed: its track, experiment, number of files, and what is worth knowing."""

    track: str
    name: str
    num_files: int
    notices: tuple[str, ...] = ()


def check(path: Path, *, track: str | None = None) -> CheckReport:
    """Check an existing zip without unpacking it.

    Args:
        track: whose rules apply; by default what the zip says of itself.

    Raises:
        DataError: no zip, or a damaged one.
        RuleError: every broken rule, entries that leave the zip's folder and bombs included.
        ConfigError: no track is given and the zip does not name one.
    """
    with open_zip(path) as archive:
        unsafe = unsafe_entries(archive)
        if unsafe:
            pack = t("pack it again with: bettersynth submit")
            raise RuleError(t("this zip is not safe to unpack"), unsafe, where=str(path), hint=pack)
        broken = archive.testzip()
        if broken is not None:
            raise RuleError(
                t("this zip is damaged"),
                [t("{name} does not match its checksum", name=broken)],
                where=str(path),
                hint=t("pack it again with: bettersynth submit"),
            )
        source = ZipSource(archive)
        label = _label(source)
        chosen = track or label.get("track")
        if chosen is None:
            raise ConfigError(t("the zip does not say its track"), where=str(path), hint=t("give it with --track"))
        rules = packable_rules(chosen)
        adopted = str(label["locked"]) if label.get("is_adopted") and "locked" in label else None
        findings, name = check_package(source, rules, adopted_digest=adopted)
    raise_findings(findings, rules, where=str(path))
    return CheckReport(rules.name, name, len(source.names), tuple(findings.notices))


def raise_findings(findings: Findings, rules: TrackRules, *, where: str) -> None:
    """Raise RuleError with every reason, if there is one."""
    if findings.reasons:
        reasons = list(dict.fromkeys(findings.reasons))
        raise RuleError(
            t("the rules of track '{track}' refuse this submission; reasons: {n}", track=rules.name, n=len(reasons)),
            reasons,
            where=where,
            hint=t("mend these and run the same command again"),
        )


def _label(source: Source) -> dict[str, str]:
    if LABEL not in source.names:
        return {}
    try:
        label = json.loads(read(source, LABEL))
    except ValueError:
        return {}
    return label if isinstance(label, dict) else {}


def check_package(source: Source, rules: TrackRules, *, adopted_digest: str | None = None) -> tuple[Findings, str]:
    """Everything that can be seen in the package itself; returns the findings and the experiment's name.

    Args:
        adopted_digest: digest of the locked part of an adopted kit's train script; None: ours must be in the package.
    """
    findings = Findings()
    tops = sorted({name.split("/", 1)[0] for name in source.names})
    if tops != ["output", "solution"]:
        findings.refuse(
            "the zip must hold exactly solution/ and output/ on top, not {names}", names=", ".join(tops) or "-"
        )
    _check_solution(source, rules, findings)
    script = _check_script(source, rules, findings, adopted_digest)
    name = script.values.get("EXP_NAME", "") if script else ""
    if not name:
        return findings, name
    first, second = (_check_stage(source, kind, name, rules, findings) for kind in (ADAPTER, FINAL))
    if first is not None and second is not None and second.parents.get("adapter") != first.digest:
        findings.refuse("stage 2 did not start from the projector of this stage 1")
    check_results(source, f"output/eval_results/MGM-2B-{FINAL}-{name}", second, findings)
    _check_extras(source, name, rules, findings)
    return findings, name


def _check_solution(source: Source, rules: TrackRules, findings: Findings) -> None:
    names = [name for name in source.names if name.startswith("solution/")]
    readmes = [name for name in names if name.lower() in {f"solution/{readme}" for readme in README_NAMES}]
    if not readmes:
        findings.refuse("solution/readme is missing: it describes the method")
    elif all(not read(source, name).strip() for name in readmes):
        findings.refuse("{name} is empty: it describes the method", name=readmes[0])
    if "solution/requirements.txt" not in names:
        findings.refuse("solution/requirements.txt is missing (it may be empty)")
    if not rules.is_challenge and DEMO_NOTE not in names:
        findings.refuse("{name} is missing: a demo zip says that it is no challenge entry", name=DEMO_NOTE)
    for name in names:
        found = absolute_paths(source, name)
        if found:
            line, text = found
            findings.refuse("{name}:{line} has an absolute path: {text}", name=name, line=line, text=text)


def absolute_paths(source: Source, name: str) -> tuple[int, str] | None:
    """The first absolute path in a script or configuration of the solution: (line number, path)."""
    if Path(name).suffix.lower() not in _SCRIPT_SUFFIXES:
        return None
    text = read(source, name).decode("utf-8", "replace")[:_TEXT_LIMIT]
    for number, line in enumerate(text.splitlines(), 1):
        match = None if line.startswith("#!") else _ABSOLUTE.search(line)
        if match:
            return number, match[0]
    return None


def _check_script(
    source: Source, rules: TrackRules, findings: Findings, adopted_digest: str | None
) -> ScriptReading | None:
    name = "output/train.sh"
    if name not in source.names:
        findings.refuse("{name} is missing: the train script copies itself there when it has finished", name=name)
        return None
    script = read_script(read(source, name).decode("utf-8", "replace"))
    findings.reasons.extend(f"{name}: {problem}" for problem in script.problems)
    if adopted_digest is not None:
        allowed = {adopted_digest}
    else:
        shipped = locked_files(rules.name)
        scripts = [TRAIN_SCRIPT_10K] if rules.name == "10k" else [TRAIN_SCRIPT]
        allowed = {locked_digest(item, shipped[item].encode()) for item in scripts if item in shipped}
    if script.locked_digest not in allowed:
        findings.refuse("{name} was changed outside of the editable block", name=name)
    preset = load_preset(rules.name)
    for stage, prefix in ((1, "PRETRAIN"), (2, "FINETUNE")):
        _check_batch(script, prefix, int(preset.settings(stage)["global_batch"]), findings)
    return script


def _check_batch(script: ScriptReading, prefix: str, wanted: int, findings: Findings) -> None:
    batch = script.number(f"{prefix}_BATCH_SIZE_PER_GPU")
    accumulation = script.number(f"{prefix}_GRADIENT_ACCUMULATION_STEPS")
    if not batch or not accumulation:
        return  # already refused as a value that is missing or is no number
    if wanted % (batch * accumulation):
        findings.refuse(
            "output/train.sh: {prefix} batch {batch} x accumulation {accumulation} x GPUs cannot be {wanted}",
            prefix=prefix,
            batch=batch,
            accumulation=accumulation,
            wanted=wanted,
        )


def _check_stage(source: Source, kind: str, name: str, rules: TrackRules, findings: Findings) -> Manifest | None:
    folder = f"output/training_dirs/MGM-2B-{kind}-{name}"
    logs = [log for log in LOGS[kind] if f"{folder}/{log}" in source.names]
    if not logs:
        findings.refuse("{folder} lacks its log {names}", folder=folder, names=" / ".join(LOGS[kind]))
    for log in logs:
        if b"loss" not in read(source, f"{folder}/{log}", limit=1 << 30):
            findings.refuse("{name} holds no training losses", name=f"{folder}/{log}")
    if len(logs) < len(LOGS[kind]) and logs:
        findings.tell("{folder} has {name} only; the other spelling is accepted too", folder=folder, name=logs[0])
    manifest = read_manifest(source, folder, "checkpoint", findings)
    if manifest is None:
        return None
    check_training(manifest, 1 if kind == ADAPTER else 2, rules, findings)
    changed = changed_files(source, manifest, must_be_there=False)
    if changed:
        findings.refuse("{folder}: changed since training: {names}", folder=folder, names=", ".join(changed))
    if rules.needs_weights:
        present = {item for item in source.names if item.startswith(folder + "/")}
        wanted = "mm_projector.bin" if kind == ADAPTER else "model-*.safetensors"
        pattern = re.compile(r".*/mm_projector\.bin" if kind == ADAPTER else r".*/model(-.*)?\.safetensors")
        if not any(pattern.fullmatch(item) for item in present):
            findings.refuse("{folder} lacks the weights {names}", folder=folder, names=wanted)
    return manifest


def _check_extras(source: Source, name: str, rules: TrackRules, findings: Findings) -> None:
    data = "output/processed_data/processed_data.jsonl"
    if rules.needs_data:
        if data not in source.names:
            findings.refuse("{name} is missing", name=data)
        else:
            with source.open(data) as stream:
                if not stream.read(1):
                    findings.refuse("{name} is empty", name=data)
    expected = {f"MGM-2B-{ADAPTER}-{name}", f"MGM-2B-{FINAL}-{name}"}
    for parent in ("output/training_dirs/", "output/eval_results/"):
        others = {
            item.removeprefix(parent).split("/")[0] for item in source.names if item.startswith(parent)
        } - expected
        for other in sorted(others):
            findings.refuse("{name} does not belong to the experiment {exp}", name=parent + other, exp=name)
