"""Make a full checkpoint of an adapter that was saved alone and the weights it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.artifact import Artifact, write_manifest
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.models.family import load_family
from bettersynth.train import lora
from bettersynth.train.bases import load_start, path_digest, start_digests
from bettersynth.train.prepare import COMPUTE_DTYPES
from bettersynth.train.stages import saved_dtype


def merge_adapter(
    adapter: Path, out: Path, *, model_zoo: Path | None = None, init_from: Path | None = None
) -> Artifact:
    """Write the full checkpoint that training with ``lora.merge: true`` would have written.

    Args:
        adapter: the folder of a stage that ended with an adapter alone, or an adapter made by PEFT.
        out: where the checkpoint goes; it must not hold one already.
        model_zoo: folder of the bases the adapter was trained on.
        init_from: the full checkpoint it was trained on, instead; needed for an adapter that we did not train.

    Raises:
        ConfigError, ConfigErrors: no base or an occupied output folder.
        DataError: no adapter there, or it was trained on other weights.
    """
    is_ours, is_there = Artifact.exists(adapter), (adapter / lora.CONFIG_FILE).is_file()
    problems: list[BetterSynthError] = []
    if not is_there:
        problems.append(DataError(t("no LoRA adapter found"), where=str(adapter), expected=lora.CONFIG_FILE))
    if init_from is None and (model_zoo is None or (is_there and not is_ours)):
        expected = "--model-zoo | --init-from" if is_ours or not is_there else "--init-from"
        problems.append(ConfigError(t("the weights the adapter was trained on are needed"), expected=expected))
    if out.exists() and any(out.iterdir()):
        problems.append(ConfigError(t("the output folder is not empty"), where=str(out)))
    raise_all(problems, where="bettersynth merge")
    trained = Artifact.load(adapter) if is_ours else None
    places = {"model_zoo": model_zoo, "init_from": init_from}
    config = _config(trained, {key: str(value) for key, value in places.items() if value is not None})
    if trained is not None:
        _check_base(config, trained)
    family = load_family(config.family)
    bits = config.lora.quantize if config.lora is not None else None
    # Few bits are made of the float32 weights; other frozen weights were rounded before they were added to.
    model = load_start(config, family, dtype=torch.float32 if bits else COMPUTE_DTYPES[config.precision])
    if bits:
        lora.round_frozen(family, model, bits)
    processor = {"image_aspect_ratio": config.image_aspect_ratio, "max_length": config.max_length}
    family.processor(model, image_root=adapter, **processor)  # writes both into the config that is saved
    lora.apply(model, adapter)
    family.save_checkpoint(model, out, dtype=saved_dtype(config))
    files = sorted(path.name for path in out.iterdir() if path.is_file())
    parents = {"adapter": trained.digest if trained is not None else path_digest(adapter)}
    facts = {**(dict(trained.facts) if trained is not None else {}), "merged": True}
    return write_manifest(out, kind="checkpoint", facts=facts, files=files, parents=parents, run={})


def _config(trained: Artifact | None, places: dict[str, str]) -> StageConfig:
    settings: dict[str, Any] = {"lr": 1.0, "precision": "bf16", "image_aspect_ratio": "pad", "lora": True}
    if trained is not None:
        settings = dict(trained.facts["identity"]["settings"])
    return stage_config({**settings, **places, "stage": 2, "data": "-", "per_device_batch_size": 1})


def _check_base(config: StageConfig, trained: Artifact) -> None:
    """Raise DataError unless the base holds the very bytes the adapter was trained on."""
    wanted = trained.facts["identity"]["inputs"]
    keys = [key for key in wanted if key not in ("data", "adapter")]
    found = start_digests(config, data=False)
    changed = [key for key in keys if found.get(key) != wanted[key]]
    if changed:
        raise DataError(
            t("the adapter was trained on other weights"),
            where=", ".join(changed),
            hint=t("give the same --model-zoo or --init-from as in the training"),
        )
