"""Checks that need the whole kit, not only the zip: locked files, fixed inputs, the data's origin, honest scores."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.config.submission import TrackRules
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.eval.score import load_results, score
from bettersynth.formats.data_juicer import DEFAULT_TOKENS
from bettersynth.formats.jsonl import BadLine, read_rows
from bettersynth.formats.llava import questions_by_id, read_llava
from bettersynth.submission.locked_files import KitRecord, changed_locked, read_record
from bettersynth.submission.rules import ADAPTER, FINAL, Findings
from bettersynth.submission.train_script import ScriptReading

SYNTHESIS = (
    "*caption*_mapper",
    "generate_*",
    "*_generator",
    "*augment*",
    "*rewrite*",
    "*rephrase*",
    "*diffusion*",
    "*synonym*",
    "optimize_*",
    "*recaption*",
    "mllm_*",
)
"""Names of operators that make something new out of a row; cleaning and choosing alone is no synthesis."""
_EVAL_FOLDERS = ("toolkit/eval",)


def check_workspace(workspace: Path, script: ScriptReading, rules: TrackRules, findings: Findings) -> None:
    """Add a reason for everything in the kit that the rules refuse."""
    record = read_record(workspace)
    if record is None:
        findings.refuse("this folder has no kit record (toolkit/kit.json); make it with: bettersynth init --adopt DIR")
        return
    if record.track != rules.name and rules.name != "10k":
        findings.refuse("this kit was made for the track {got}, not {track}", got=record.track, track=rules.name)
    findings.reasons.extend(changed_locked(workspace, record))
    check_inputs(workspace, record, rules, findings)
    name = script.values.get("EXP_NAME", "")
    stages = {
        stage: _stage(workspace / "output" / "training_dirs" / f"MGM-2B-{kind}-{name}", findings)
        for stage, kind in ((1, ADAPTER), (2, FINAL))
    }
    second = stages[2]
    if second is not None:
        _check_instruct(workspace, second, rules, findings)
    data = _processed(workspace, script)
    if data is None:
        findings.refuse(
            "the processed data {name} named by the train script is not there",
            name=script.values.get("PRETRAIN_DATASET", "-"),
        )
    else:
        _check_origin(workspace, data, rules, findings)
        if stages[1] is not None:
            _check_trained_on(data, stages[1], findings)
    check_scores(workspace, workspace / "output" / "eval_results" / f"MGM-2B-{FINAL}-{name}", findings)


def _stage(folder: Path, findings: Findings) -> Artifact | None:
    """The artifact of a stage; that it is missing is refused by the package's own check."""
    try:
        return Artifact.load(folder, kind="checkpoint")
    except BetterSynthError:
        return None


def check_inputs(workspace: Path, record: KitRecord, rules: TrackRules, findings: Findings) -> None:
    """Add a reason for every fixed input that is missing or was changed."""
    for name, noted in record.data.items():
        path = workspace / name
        if path.is_file() and digest_file(path) != noted:
            findings.refuse("{name} was changed; only the processed data may differ from the kit", name=name)
    for name in (rules.questions_file, rules.instruct_file):
        if name not in record.data and _find(workspace, name) is None:
            findings.refuse("{name} is missing; it belongs to the track", name=name)


def _find(workspace: Path, name: str) -> Path | None:
    """A fixed input by its name, or the only file of that kind when a kit names its folder otherwise."""
    path = workspace / name
    if path.is_file():
        return path
    if name.startswith("input/"):
        found = sorted((workspace / "input").glob(f"*/{path.name}"))
    else:
        found = sorted((workspace / "toolkit/training/data").glob("finetuning_stage_1*/mgm_instruction*.json"))
    return found[0] if len(found) == 1 else None


def _check_instruct(workspace: Path, second: Artifact, rules: TrackRules, findings: Findings) -> None:
    path = _find(workspace, rules.instruct_file)
    if path is None:
        findings.refuse("{name} is missing; it belongs to the track", name=rules.instruct_file)
    elif second.parents.get("data") != digest_file(path):
        findings.refuse("stage 2 was trained on other data than {name}", name=path.relative_to(workspace).as_posix())


def _processed(workspace: Path, script: ScriptReading) -> Path | None:
    """The data set that the script names; its paths start in ``toolkit``."""
    named = script.values.get("PRETRAIN_DATASET", "")
    path = workspace / "toolkit" / named
    return path if named and path.is_file() else None


def _check_origin(workspace: Path, data: Path, rules: TrackRules, findings: Findings) -> None:
    shown = _shown(workspace, data)
    questions = _find(workspace, rules.questions_file)
    if questions is not None:
        _check_rows(list(_rows(data, findings, shown)), questions_by_id(questions), shown, rules, findings)
    try:
        artifact = Artifact.load(data.parent, kind="dataset")
    except BetterSynthError:
        findings.refuse(
            "{name} has no manifest, so nothing says which recipe made it; make it with: bettersynth process",
            name=shown,
        )
        return
    if artifact.files.get(data.name) != digest_file(data):
        findings.refuse("{name} was changed after it was made", name=shown)
    _check_recipe(artifact, shown, findings)


def _check_rows(
    rows: Sequence[Mapping[str, Any]],
    seed: Mapping[str, Mapping[str, Any]],
    shown: str,
    rules: TrackRules,
    findings: Findings,
) -> None:
    """Rows may be chosen, rewritten and repeated: every id is the seed's, every picture the seed's or synthetic."""
    foreign = sorted({str(row.get("id", "")) for row in rows} - set(seed))
    if foreign:
        findings.refuse(
            "{name}: {n} ids are not in the seed set, e.g. {example}; rows may only be chosen, rewritten and repeated",
            name=shown,
            n=len(foreign),
            example=", ".join(foreign[:3]),
        )
    pictures = [
        str(picture)
        for row in rows
        for picture in row.get("images") or ()
        if "synthetic_images/" not in str(picture)
        and not str(picture).endswith(str(seed.get(str(row.get("id", "")), {}).get("image", "")))
    ]
    if pictures:
        findings.refuse(
            "{name}: {n} pictures are neither the seed's for their id nor in synthetic_images, e.g. {example}",
            name=shown,
            n=len(pictures),
            example=pictures[0],
        )
    if not rows:
        findings.refuse("{name} is empty", name=shown)
    if rules.max_samples and len(rows) > rules.max_samples:
        findings.tell(
            "{name}: {n} rows, sampled down to {limit} for training", name=shown, n=len(rows), limit=rules.max_samples
        )


def _rows(path: Path, findings: Findings, shown: str) -> Iterator[Mapping[str, Any]]:
    for number, row in read_rows(path):
        if isinstance(row, BadLine):
            findings.refuse("{name}:{line} is not a valid row", name=shown, line=number)
        else:
            yield row


def _shown(workspace: Path, path: Path) -> str:
    resolved = path.resolve()
    root = workspace.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.name


def operator_steps(facts: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """(operator, rows it changed or made) of a data set's recipe; None where the manifest does not count them."""
    for key in ("accounting", "steps", "process", "operators"):
        entries = facts.get(key)
        if isinstance(entries, Sequence) and not isinstance(entries, str) and entries:
            return [_step(entry) for entry in entries]
    recipe = facts.get("recipe")
    return operator_steps(recipe) if isinstance(recipe, Mapping) else []


def _step(entry: Any) -> tuple[str, int | None]:
    if not isinstance(entry, Mapping):
        return str(entry), None
    name = entry.get("operator") or entry.get("name") or entry.get("op")
    if name is None:
        return (str(next(iter(entry))) if len(entry) == 1 else "?"), None
    name = str(name).partition(" #")[0]  # the second use of an operator is counted as "NAME #2"
    counts = [entry[key] for key in ("changed", "rows_made") if isinstance(entry.get(key), int)]
    return name, sum(counts) if counts else None


def _check_recipe(artifact: Artifact, shown: str, findings: Findings) -> None:
    steps = operator_steps(artifact.facts)
    if not steps:
        findings.refuse("the manifest of {name} does not list its operators", name=shown)
        return
    synthesis = [(name, count) for name, count in steps if any(fnmatch.fnmatch(name, form) for form in SYNTHESIS)]
    if not synthesis:
        findings.refuse("{name}: no synthesis step; the rules ask for one (e.g. image_captioning_mapper)", name=shown)
    elif all(count == 0 for _, count in synthesis):
        findings.refuse(
            "{name}: the synthesis step {operator} changed no row",
            name=shown,
            operator=", ".join(n for n, _ in synthesis),
        )
    recipe = artifact.facts.get("recipe")
    track = artifact.facts.get("track") or (recipe.get("track") if isinstance(recipe, Mapping) else None)
    if track == "open":
        findings.refuse("{name} was made by a recipe of the open track", name=shown)


def _check_trained_on(data: Path, first: Artifact, findings: Findings) -> None:
    """The file that stage 1 read must hold nothing but rows of the processed data."""
    wanted = first.parents.get("data")
    candidates = sorted({*data.parent.glob("*.json"), *data.parent.glob("*/*.json")})
    trained = next((path for path in candidates if digest_file(path) == wanted), None)
    if trained is None:
        findings.refuse(
            "stage 1 ({stage}) was trained on a file that is not beside {name} any more: the data was made anew since; "
            "train on it with: bettersynth run train_only, or make the old data again with its own recipe",
            stage=first.folder.name,
            name=data.name,
        )
        return
    rows = {
        (str(row.get("id", "")), DEFAULT_TOKENS.strip(str(row.get("text", ""))))
        for _, row in read_rows(data)
        if not isinstance(row, BadLine)
    }
    foreign = [
        record
        for record in read_llava(trained).records
        if (str(record.get("id", "")), str(record["conversations"][-1]["value"])) not in rows
        or len(record["conversations"]) != 2
    ]
    if foreign:
        findings.refuse(
            "{name}: {n} records of stage 1 are not rows of {data}, e.g. id {example}",
            name=trained.name,
            n=len(foreign),
            data=data.name,
            example=foreign[0].get("id", ""),
        )


def check_scores(workspace: Path, results: Path, findings: Findings) -> None:
    """Score the answers again and refuse figures that do not come out: hand-written results have no other way in."""
    for manifest in sorted(results.glob("*/manifest.json")):
        predictions = manifest.parent
        scored = predictions / "scores"
        if not Artifact.exists(scored):
            continue  # refused by the package's own check
        name = _shown(workspace, predictions)
        try:
            told = {result.protocol: result.score.value for result in load_results(scored)}
            with tempfile.TemporaryDirectory() as folder:
                score(predictions, workspace / "toolkit" / "eval", Path(folder), resamples=20)
                found = {result.protocol: result.score.value for result in load_results(Path(folder))}
        except BetterSynthError as error:
            detail = error.message + (f" ({error.where})" if error.where else "")
            findings.refuse("{name} cannot be scored again: {problem}", name=name, problem=detail)
            continue
        for protocol, value in told.items():
            if abs(found.get(protocol, -1.0) - value) > 1e-6:
                findings.refuse(
                    "{name}: {protocol} is {found} when scored again, not {value}",
                    name=name,
                    protocol=protocol,
                    found=f"{found[protocol]:.2f}" if protocol in found else t("not computed"),
                    value=f"{value:.2f}",
                )
