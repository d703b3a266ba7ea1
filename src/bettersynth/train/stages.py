"""Run one stage, or both: from data and bases to a finished checkpoint folder, continuing whatever was interrupted."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import MANIFEST, Artifact, write_atomic, write_manifest
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError, PeerLost, RunInterrupted
from bettersynth.core.fingerprint import canonical_json, digest_json
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.models.family import ModelFamily, load_family
from bettersynth.train import checkpoint, lora, unified_result
from bettersynth.train.bases import load_start, start_digests
from bettersynth.train.callbacks import LOG_FILE, Callback, Callbacks, TerminalProgress, build_callbacks
from bettersynth.train.data import prepare, rejected_lines
from bettersynth.train.deepspeed import with_deepspeed
from bettersynth.train.distributed import Devices, is_peer_lost, open_devices
from bettersynth.train.examples import TrainingSet
from bettersynth.train.prepare import COMPUTE_DTYPES, build_processor
from bettersynth.train.preset import Preset, load_preset, stage_settings
from bettersynth.train.technique import technique_settings
from bettersynth.train.trainer import Trainer, TrainResult
from bettersynth.train.validation import open_validation

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
REJECTED_FILE = "rejected.jsonl"
_RESULT = ".result.tmp"


@dataclass(frozen=True)
class StageJob:
    """A stage with everything resolved: what decides its result, and where it goes."""

    config: StageConfig
    out: Path
    parents: Mapping[str, str]
    devices: Devices

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result: settings and the digests of all inputs."""
        return {"settings": self.config.result_settings(), "inputs": dict(self.parents)}

    @property
    def digest(self) -> str:
        """Digest of :attr:`identity`."""
        return digest_json(self.identity)


def run_stage(
    config: StageConfig, *, out: Path, progress: Callback | None = None, callbacks: Sequence[Callback] = ()
) -> Artifact:
    """Train one stage into ``out``; run it again after any kind of stop and it continues.

    A stage that is finished with the same inputs is returned as it is. In several processes (torchrun) each calls this.

    Args:
        config: what to train.
        out: folder of the result: weights, logs, ``rejected.jsonl`` (every row not trained on, and why), manifest.
        progress: shows the run; a line on stderr by default. ``Callback()`` shows nothing.
        callbacks: further watchers, e.g. a probe.

    Returns:
        The checkpoint: after stage 1 ``config.json`` and ``mm_projector.*``, after stage 2 a full checkpoint.

    Raises:
        ConfigError: ``out`` holds a run with other settings or inputs, or the settings cannot be carried out.
        DataError: inputs are missing or damaged, too many bad samples, or nothing can be written.
        RunInterrupted: stopped by the user, resumable.
        PeerLost: another of the processes has ended.
    """
    watchers = [progress or TerminalProgress(), *callbacks]
    technique_settings(config.techniques)
    try:
        with open_devices(config.device) as devices:
            config, notes = with_deepspeed(config.with_devices(devices.world))
            job = StageJob(config, out, start_digests(config), devices)
            finished = finished_stage(job)
            if finished is not None:
                if devices.is_main:
                    checkpoint.remove_states(out)  # a kill just after the manifest leaves the last one behind
                    Callbacks(watchers).on_note(t("{name}: finished before, not trained again", name=out.name))
                return finished
            for note in notes if devices.is_main else ():
                Callbacks(watchers).on_note(note)
            writers = build_callbacks(config, out)
            with _lock(job):
                return _train(job, load_family(config.family), [*writers, *watchers])
    except RuntimeError as error:
        if not is_peer_lost(error):
            raise
        raise PeerLost(
            t("another process of this training has ended; its own message says why"),
            where=str(out),
            hint=t("run the same command again; it continues from the last state"),
        ) from error
    except KeyboardInterrupt:
        # Outside the loop, or pressed twice in it: nothing new is saved.
        raise RunInterrupted(
            t("interrupted"), where=str(out), hint=t("run the same command again; it continues from the last state")
        ) from None


def finished_stage(job: StageJob) -> Artifact | None:
    """The artifact in the output folder when it was made from the same inputs, or None when nothing is finished.

    Raises:
        ConfigError: the folder is used by another run.
        DataError: the folder was finished but files have been removed since.
    """
    if Artifact.exists(job.out):
        artifact = Artifact.load(job.out, kind="checkpoint")
        _refuse_other_run(job, artifact.facts.get("identity"))
        gone = [name for name in artifact.files if not (job.out / name).is_file()]
        if gone:
            raise DataError(
                t("files of a finished stage are missing"),
                where=str(job.out),
                got=", ".join(gone),
                hint=t("delete the folder to train the stage again"),
            )
        return artifact
    path = job.out / RUN_FILE
    if path.is_file() and checkpoint.saved_states(job.out):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        _refuse_other_run(job, found)
    return None


def adopt_stage(config: StageConfig, *, source: Path, out: Path) -> bool:
    """Copy a stage into ``out`` that was finished in ``source`` with the same settings and inputs on one device.

    It is what training into ``out`` would give. The manifest comes last, so that a killed copy is begun again.

    Returns:
        Whether ``out`` now holds the stage; False when ``source`` has no such one, or ``out`` a run of its own.
    """
    if Artifact.exists(out) or (out / RUN_FILE).exists() or not Artifact.exists(source):
        return False
    found = Artifact.load(source, kind="checkpoint")
    job = StageJob(config.with_devices(1), out, start_digests(config), Devices(0, 1, torch.device("cpu")))
    if canonical_json(found.facts.get("identity")) != canonical_json(job.identity) or found.verify():
        return False
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            shutil.copyfile(path, out / path.name)
    write_atomic(out / MANIFEST, (source / MANIFEST).read_bytes())
    return True


def _refuse_other_run(job: StageJob, found: Any) -> None:
    """Raise ConfigError, naming what differs, unless a folder belongs to this very job."""
    wanted = job.identity
    if isinstance(found, dict) and canonical_json(found) == canonical_json(wanted):
        return
    changed = []
    for part in ("settings", "inputs"):
        before = found.get(part, {}) if isinstance(found, dict) else {}
        for key in sorted({*before, *wanted[part]}):
            if before.get(key) != wanted[part].get(key):
                changed.append(f"{key}: {before.get(key)} -> {wanted[part].get(key)}")
    raise ConfigError(
        t("the output folder holds a run with other settings or inputs"),
        where=str(job.out),
        got="; ".join(changed) or t("a run of another version"),
        hint=t("choose another output folder or name, or delete this one"),
    )


@contextmanager
def _lock(job: StageJob) -> Iterator[None]:
    """Let one run at a time write to the folder. The system drops the lock when the process ends, however it ends."""
    if not job.devices.is_main:
        job.devices.barrier()
        yield
        return
    path = job.out / LOCK_FILE
    if not path.exists():
        write_atomic(path, b"")
    with path.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                t("another process is training into this folder"),
                where=str(job.out),
                hint=t("wait for it or choose another output folder"),
            ) from error
        finished_stage(job)  # refuses a run that another process began between the first look and the lock
        write_atomic(job.out / RUN_FILE, json.dumps(job.identity, indent=1, sort_keys=True).encode())
        job.devices.barrier()
        yield
        path.unlink(missing_ok=True)


def _train(job: StageJob, family: ModelFamily, watchers: Sequence[Callback]) -> Artifact:
    with Meter(f"stage {job.config.stage}") as meter:
        model = load_start(job.config, family, dtype=None)
        processor = build_processor(job.config, family, model)
        data = prepare(job.config, processor)
        if job.devices.is_main:
            write_atomic(job.out / REJECTED_FILE, rejected_lines(data.rejected))
            for note in data.notes:
                Callbacks(watchers).on_note(f"{job.out.name}: {note}")
        report = Callbacks(watchers)
        watchers = [
            *watchers,
            *open_validation(job.config, family, model, job.out, report),
            *unified_result.watchers(job.config, processor, job.out, report),
        ]
        trainer = Trainer(job.config, family, model, processor, data, job.out, job.devices, watchers)
        result = trainer.run()
        names = _write_result(job, trainer, result)
    artifact = Artifact(job.out, "checkpoint", "", {}, {}, {})
    if job.devices.is_main:
        run = {
            "wall_s": round(result.earlier_s[0] + meter.cost.wall_s, 3),
            "cpu_s": round(result.earlier_s[1] + meter.cost.cpu_s, 3),
            "training_wall_s": round(result.counters.wall_s, 3),
            "training_cpu_s": round(result.counters.cpu_s, 3),
            "peak_rss_bytes": meter.cost.peak_rss_bytes,
            "device": str(job.devices.device),
            "processes": job.devices.world,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "log": LOG_FILE,
            **trainer.memory,
        }
        facts = stage_facts(job, data, result)
        artifact = write_manifest(job.out, kind="checkpoint", facts=facts, files=names, parents=job.parents, run=run)
        checkpoint.remove_states(job.out)
    job.devices.barrier()
    return artifact if job.devices.is_main else Artifact.load(job.out)


def stage_facts(job: StageJob, data: TrainingSet, result: TrainResult) -> dict[str, Any]:
    """What the manifest says about a finished stage; every row of the data is in exactly one of the counts.

    Raises:
        DataError: the counts do not add up, which would be a defect.
    """
    late = len(result.bad)
    trained = len(data.examples) - late
    if data.rows != trained + len(data.rejected) + late + data.sampled_out:
        raise DataError(t("rows are unaccounted for; this is a defect of bettersynth"), where=str(job.out))
    reasons = dict(data.reasons)
    if late:
        reasons["bad_image"] = reasons.get("bad_image", 0) + late
    counters = result.counters
    return {
        "stage": job.config.stage,
        "family": job.config.family,
        "identity": job.identity,
        "rows": data.rows,
        "rows_trained": trained,
        "rows_rejected": reasons,
        "rows_sampled_out": data.sampled_out,
        "steps": result.total_steps,
        "samples_seen": counters.samples,
        "tokens": counters.tokens,
        "target_tokens": counters.targets,
        "skipped_steps": counters.skipped_steps,
        "last_loss": counters.last_loss,
        "mean_loss": result.mean_loss,
        "weights_digest": result.weights_digest,
        **data.facts,
        **({"techniques": result.techniques} if result.techniques else {}),
    }


def _write_result(job: StageJob, trainer: Trainer, result: TrainResult) -> list[str]:
    """Save the weights beside the folder's logs, whole files only; returns the names that belong to the result.

    Raises:
        DataError: the disk is full or the folder is read-only; the last resumable state stays.
    """
    if not job.devices.is_main:
        return []
    try:
        return _write_files(job, trainer, result)
    except OSError as error:
        shutil.rmtree(job.out / _RESULT, ignore_errors=True)
        raise DataError(
            t("cannot write the result of the training"),
            where=str(job.out),
            got=error.strerror,
            hint=t("make room and run the same command again: the last state is kept, nothing is trained twice"),
        ) from error


def _write_files(job: StageJob, trainer: Trainer, result: TrainResult) -> list[str]:
    temporary = job.out / _RESULT
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    if job.config.unified is not None:
        unified_result.save(trainer, temporary, dtype=saved_dtype(job.config))
    else:
        _save_weights(job.config, trainer.family, trainer.model, temporary)
    names = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
    for name in names:
        (job.out / name).parent.mkdir(exist_ok=True)
        (temporary / name).replace(job.out / name)
    shutil.rmtree(temporary)
    rows = sorted([*trainer.data.rejected, *result.bad.values()], key=lambda item: item.row)
    write_atomic(job.out / REJECTED_FILE, rejected_lines(rows))
    return [*names, REJECTED_FILE]


def _save_weights(config: StageConfig, family: ModelFamily, model: nn.Module, folder: Path) -> None:
    if config.stage == 1:
        family.save_adapter(model, folder)
        return
    if config.lora is not None:
        lora.save(config, family, model, folder / lora.FOLDER if config.lora.merge else folder)
        if not config.lora.merge:
            return
        lora.merge(model)
    family.save_checkpoint(model, folder, dtype=saved_dtype(config))


def saved_dtype(config: StageConfig) -> torch.dtype:
    """Checkpoints are written in the precision they were trained with, as the original does."""
    return COMPUTE_DTYPES[config.precision]


@dataclass(frozen=True)
class TwoStageInputs:
    """Data, pictures and bases of a two-stage training. Without pre-training data stage 1 is left out."""

    finetune_data: Path
    model_zoo: Path
    pretrain_data: Path | None = None
    pretrain_images: Path | None = None
    finetune_images: Path | None = None


def run_two_stages(
    preset: str | Path | Preset,
    inputs: TwoStageInputs,
    *,
    out: Path,
    name: str,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Callback | None = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[Artifact | None, Artifact]:
    """Both stages of a track, into ``out/training_dirs/MGM-2B-{Pretrain,Finetune}-NAME`` as the challenge kit does.

    Args:
        preset: a track's name, a YAML file, or a loaded preset.
        inputs: where everything lies.
        out: the kit's ``output`` folder.
        name: experiment name.
        overrides: changed keys per stage, ``{"pretrain": {...}, "finetune": {...}}``; a locked track refuses most.

    Returns:
        The artifacts of stage 1 (None when left out) and stage 2.

    Raises:
        RuleError: a locked track does not allow an override. See :func:`run_stage` for the rest.
    """
    first, second = two_stage_configs(preset, inputs, out=out, name=name, overrides=overrides)
    adapter = None
    if first is not None:
        adapter = run_stage(first, out=stage_folder(out, 1, name), progress=progress, callbacks=callbacks)
    return adapter, run_stage(second, out=stage_folder(out, 2, name), progress=progress, callbacks=callbacks)


def stage_folder(out: Path, stage: int, name: str) -> Path:
    """The folder of a stage's result inside the kit's ``output``."""
    return out / "training_dirs" / f"MGM-2B-{'Pretrain' if stage == 1 else 'Finetune'}-{name}"


def two_stage_configs(
    preset: str | Path | Preset,
    inputs: TwoStageInputs,
    *,
    out: Path,
    name: str,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    devices: Mapping[int, int] | None = None,
) -> tuple[StageConfig | None, StageConfig]:
    """The settings of both stages, all mistakes checked before anything runs; stage 2 loads what stage 1 writes.

    Args:
        devices: stage to number of devices, for stages whose batch arithmetic is to be checked too.

    Raises:
        ConfigErrors: the mistakes of both stages together; one mistake is raised as it is.
    """
    loaded = preset if isinstance(preset, Preset) else load_preset(preset)
    unknown = sorted(set(overrides or {}) - {"pretrain", "finetune"})
    if unknown:
        raise ConfigError(t("unknown stage"), got=", ".join(unknown), expected="pretrain, finetune")
    changes = {stage: dict((overrides or {}).get(stage, {})) for stage in ("pretrain", "finetune")}
    places: dict[int, dict[str, Any]] = {2: {"data": inputs.finetune_data, "image_root": inputs.finetune_images}}
    if inputs.pretrain_data is not None:
        places[1] = {"data": inputs.pretrain_data, "image_root": inputs.pretrain_images}
        places[2]["adapter"] = stage_folder(out, 1, name)
    configs: dict[int, StageConfig] = {}
    problems: list[BetterSynthError] = []
    for stage, key in ((1, "pretrain"), (2, "finetune")):
        if stage not in places:
            continue
        try:
            given = {**places[stage], "model_zoo": inputs.model_zoo, **changes[key]}
            configs[stage] = stage_settings(loaded, stage, given)
            technique_settings(configs[stage].techniques)
            if stage in (devices or {}):
                configs[stage].with_devices((devices or {})[stage])
        except BetterSynthError as error:
            problems.append(error)
    raise_all(problems, where=loaded.name)
    return configs.get(1), configs[2]
