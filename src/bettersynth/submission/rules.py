"""What the rules ask of training and evaluation, checked on manifests: settings, chain of digests, provenance."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bettersynth.config.submission import TrackRules
from bettersynth.config.train import stage_config
from bettersynth.core.artifact import MANIFEST
from bettersynth.core.errors import BetterSynthError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.eval.predictions import parse as parse_prediction
from bettersynth.eval.protocol import PROVENANCE_KEYS
from bettersynth.eval.protocol import require_provenance as require_score_provenance
from bettersynth.eval.score import parse_result
from bettersynth.infer.checkpoint import DTYPES
from bettersynth.submission.source import Source, digest, read
from bettersynth.train.preset import FREE_KEYS, Preset, load_preset, preset_names

ADAPTER, FINAL = "Pretrain", "Finetune"
REQUIRED_TASKS = ("textvqa", "mmbench")
_ANSWER_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.index.json")


@dataclass
class Findings:
    """What a check found: ``reasons`` refuse the submission, ``notices`` are only told."""

    reasons: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def refuse(self, template: str, /, **values: object) -> None:
        """Note a broken rule."""
        self.reasons.append(t(template, **values))

    def tell(self, template: str, /, **values: object) -> None:
        """Note something a user should know."""
        self.notices.append(t(template, **values))


@dataclass(frozen=True)
class Manifest:
    """A manifest inside a package: its folder's name there, and what it says."""

    folder: str
    kind: str
    digest: str
    facts: Mapping[str, Any]
    parents: Mapping[str, str]
    files: Mapping[str, str]
    run: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of a training stage that decide its result."""
        identity = self.facts.get("identity")
        found = identity.get("settings") if isinstance(identity, Mapping) else self.facts.get("settings")
        return found if isinstance(found, Mapping) else {}


def read_manifest(source: Source, folder: str, kind: str, findings: Findings) -> Manifest | None:
    """The manifest of a folder, its digest recomputed; None (and a reason) when it is missing or was edited."""
    name = f"{folder}/{MANIFEST}"
    if name not in source.names:
        findings.refuse("{folder} has no manifest, so nothing says how it was made", folder=folder)
        return None
    try:
        raw = json.loads(read(source, name))
        body = {key: raw[key] for key in ("kind", "facts", "parents", "files")}
        manifest = Manifest(folder, raw["kind"], raw["digest"], raw["facts"], raw["parents"], raw["files"], raw["run"])
    except (ValueError, KeyError, TypeError, BetterSynthError) as error:
        findings.refuse("{name} is damaged: {error}", name=name, error=error)
        return None
    if digest_json(body) != manifest.digest:
        findings.refuse("{name} was edited by hand: its digest does not match", name=name)
        return None
    if manifest.kind != kind:
        findings.refuse("{name} describes a {got}, not a {kind}", name=name, got=manifest.kind, kind=kind)
        return None
    return manifest


def changed_files(source: Source, manifest: Manifest, *, must_be_there: bool) -> list[str]:
    """Files of a manifest that differ in the package; absent ones count only when they must be there."""
    present = set(source.names)
    changed = []
    for name, expected in manifest.files.items():
        full = f"{manifest.folder}/{name}"
        if full not in present:
            if must_be_there:
                changed.append(name)
        elif digest(source, full) != expected:
            changed.append(name)
    return changed


def track_presets(track: str) -> list[Preset]:
    """The locked training presets of a track (the demo has one per size)."""
    presets = [load_preset(name) for name in preset_names()]
    return [preset for preset in presets if preset.track == track and preset.locked]


def check_training(manifest: Manifest, stage: int, rules: TrackRules, findings: Findings) -> None:
    """Refuse settings that the track does not allow; every difference is named with both values."""
    if manifest.facts.get("stage") != stage:
        findings.refuse("{folder} is not the result of stage {stage}", folder=manifest.folder, stage=stage)
    lora = sorted(
        key for key in (*manifest.facts, *manifest.settings, *manifest.files) if "lora" in key or "adapter_" in key
    )
    if lora:
        findings.refuse("{folder}: LoRA is not allowed ({keys})", folder=manifest.folder, keys=", ".join(lora))
    best: list[str] | None = None
    for preset in track_presets(rules.name):
        differences = _differences(manifest, preset, stage)
        if best is None or len(differences) < len(best):
            best = differences
    findings.reasons.extend(best or [])
    seen, rows = manifest.facts.get("samples_seen"), manifest.facts.get("rows")
    if not isinstance(seen, int) or not isinstance(rows, int):
        findings.refuse("{folder} does not say how many samples were trained on", folder=manifest.folder)
    elif stage == 1 and rules.max_samples and seen > rules.max_samples:
        findings.refuse(
            "{folder}: {seen} samples seen in stage 1, the track allows {limit}",
            folder=manifest.folder,
            seen=seen,
            limit=rules.max_samples,
        )
    if rules.needs_start and stage == 1 and not manifest.parents.get("init_from"):
        findings.refuse("{folder} does not continue from a ranked online model (init_from)", folder=manifest.folder)
    if not rules.needs_start and manifest.parents.get("init_from"):
        findings.refuse("{folder} starts from another model than the kit's bases", folder=manifest.folder)


def _differences(manifest: Manifest, preset: Preset, stage: int) -> list[str]:
    stand_ins = {"data": "data.json", "model_zoo": "model_zoo"}
    expected = stage_config({**stand_ins, **preset.settings(stage), "stage": stage}).result_settings()
    free = FREE_KEYS | set(preset.editable)
    reasons = []
    for key, value in expected.items():
        if key in free:
            continue
        if key not in manifest.settings:
            reasons.append(t("{folder} does not say {key}", folder=manifest.folder, key=key))
        elif manifest.settings[key] != value:
            reasons.append(
                t(
                    "{folder}: {key} was {got}, the track fixes {wanted}",
                    folder=manifest.folder,
                    key=key,
                    got=manifest.settings[key],
                    wanted=value,
                )
            )
    known = set(expected) | free
    reasons += [
        t("{folder}: {key} is no setting of this track", folder=manifest.folder, key=key)
        for key in manifest.settings
        if key not in known
    ]
    return reasons


def model_digests(manifest: Manifest) -> set[str]:
    """Digests under which the model of a checkpoint manifest may have answered: its own, and one per precision.

    Follows ``infer.checkpoint``, from the manifest's file digests, so that the weights need not be in the package.
    """
    files = {
        name: value
        for name, value in manifest.files.items()
        if name in _ANSWER_FILES
        or (any(fnmatch.fnmatch(name, form) for form in _WEIGHT_FILES) and not name.startswith("mm_projector"))
    }
    weights = digest_json(files)
    found = {manifest.digest, weights}
    for dtype in DTYPES:
        for aspect in ("pad", "square"):
            found.add(digest_json({"checkpoint": weights, "dtype": dtype, "aspect": aspect}))
    return found


def check_results(source: Source, folder: str, model: Manifest | None, findings: Findings) -> list[str]:
    """Refuse answers and scores that do not come from the trained model; returns the folders of answers.

    Every file below ``folder`` must belong to a manifest, so that nothing written by hand travels along.
    """
    inside = [name for name in source.names if name.startswith(folder + "/")]
    if not inside:
        findings.refuse("no evaluation results in {folder}", folder=folder)
        return []
    folders = sorted({name.removesuffix("/" + MANIFEST) for name in inside if name.endswith("/" + MANIFEST)})
    covered = {f"{parent}/{MANIFEST}" for parent in folders}
    answers: list[Manifest] = []
    scored: list[Manifest] = []
    for parent in folders:
        kind = _kind(source, parent)
        if kind not in ("predictions", "scores"):
            findings.refuse("{folder} holds a {kind}, not evaluation results", folder=parent, kind=kind)
            continue
        manifest = read_manifest(source, parent, kind, findings)
        if manifest is None:
            continue
        covered |= {f"{parent}/{name}" for name in manifest.files}
        changed = changed_files(source, manifest, must_be_there=True)
        if changed:
            findings.refuse(
                "{folder}: changed or missing since it was made: {names}", folder=parent, names=", ".join(changed)
            )
        else:
            (answers if kind == "predictions" else scored).append(manifest)
    for name in sorted(set(inside) - covered)[:10]:
        findings.refuse("{name} has no provenance: no manifest says which model gave it", name=name)
    for manifest in answers:
        _check_answers(source, manifest, model, findings)
        scores = [item for item in scored if item.parents.get("predictions") == manifest.digest]
        if not scores:
            findings.refuse("{folder} was not scored; run: bettersynth score", folder=manifest.folder)
        for item in scores:
            _check_scores(source, item, manifest, findings)
    for task in REQUIRED_TASKS:
        if not any(str(manifest.facts.get("task")) == task for manifest in answers):
            findings.refuse("no answers to {task} in {folder}", task=task, folder=folder)
    return [manifest.folder for manifest in answers]


def _kind(source: Source, folder: str) -> str:
    try:
        return str(json.loads(read(source, f"{folder}/{MANIFEST}"))["kind"])
    except (ValueError, KeyError, TypeError):
        return "?"


def _check_answers(source: Source, manifest: Manifest, model: Manifest | None, findings: Findings) -> None:
    checkpoint = manifest.parents.get("checkpoint", "")
    if not checkpoint:
        findings.refuse("{folder} does not say which model answered", folder=manifest.folder)
    elif model is not None and checkpoint not in model_digests(model):
        findings.refuse(
            "{folder} was answered by another model ({got}) than {model}",
            folder=manifest.folder,
            got=checkpoint,
            model=model.folder,
        )
    if manifest.facts.get("limit") is not None:
        findings.refuse(
            "{folder} answers only the first {n} questions", folder=manifest.folder, n=manifest.facts["limit"]
        )
    for number, line in enumerate(read(source, f"{manifest.folder}/predictions.jsonl").splitlines(), 1):
        try:
            prediction = parse_prediction(json.loads(line))
            missing = [key for key in PROVENANCE_KEYS if not prediction.provenance.get(key)]
            problem = t("no {keys}", keys=", ".join(missing)) if missing else ""
            if not problem and prediction.provenance["checkpoint"] != checkpoint:
                problem = t("another checkpoint")
        except (ValueError, KeyError, TypeError) as error:
            problem = str(error)
        if problem:
            findings.refuse(
                "{folder}: answer {n} has no valid provenance ({problem}); simulated answers are refused",
                folder=manifest.folder,
                n=number,
                problem=problem,
            )
            return


def _check_scores(source: Source, manifest: Manifest, answers: Manifest, findings: Findings) -> None:
    try:
        document = json.loads(read(source, f"{manifest.folder}/results.json"))
        results = [require_score_provenance(parse_result(raw)) for raw in document["results"]]
    except BetterSynthError as error:
        findings.refuse("{folder}: {problem}", folder=manifest.folder, problem=f"{error.message} ({error.got})")
        return
    except (ValueError, KeyError, TypeError) as error:
        findings.refuse("{folder}/results.json is damaged: {error}", folder=manifest.folder, error=error)
        return
    for result in results:
        origin = result.provenance
        if origin["checkpoint"] != answers.parents.get("checkpoint") or origin["predictions"] != answers.digest:
            findings.refuse(
                "{folder}: the {protocol} score belongs to other answers",
                folder=manifest.folder,
                protocol=result.protocol,
            )
