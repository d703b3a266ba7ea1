"""Find what a stage starts from, load it, and fingerprint it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.models.family import BaseFolders, ModelFamily
from bettersynth.train.zoo import ZOO, zoo_folder, zoo_problems


def base_folders(config: StageConfig) -> BaseFolders:
    """The three bases a first training starts from. Raises DataError when one is not there."""
    named = {part: getattr(config.bases, part) for part in ZOO} if config.bases is not None else {}
    if not named:
        raise_all(zoo_problems(config.model_zoo or Path()))
    places = {part: named.get(part) or zoo_folder(config.model_zoo or Path(), part) for part in ZOO}
    for part, path in places.items():
        if not path.is_dir():
            raise DataError(t("base model folder not found"), where=f"bases.{part}", got=path)
    return BaseFolders(
        llm=places["llm"],
        vision_tower=places["vision_tower"],
        vision_tower_aux=places["vision_tower_aux"],
        image_size_aux=config.image_size_aux,
        model_max_length=config.max_length,
        image_aspect_ratio=config.image_aspect_ratio,
    )


def load_start(config: StageConfig, family: ModelFamily, dtype: torch.dtype | None = torch.float32) -> nn.Module:
    """The model as it is before the first step: bases or checkpoint, with the adapter on top.

    Args:
        config: says from which files.
        family: the model's family.
        dtype: of the parameters; None: as they are stored, in memory shared with other processes, for a
            :mod:`placement <bettersynth.train.placement>` to take what it keeps.
    """
    if config.init_from is not None:
        model = family.load_checkpoint(config.init_from, dtype=dtype, model_zoo=config.model_zoo)
    else:
        model = family.load_base(base_folders(config), dtype=dtype, seed=config.seed)
    if config.adapter is not None:
        if not config.adapter.exists():
            raise DataError(
                t("adapter not found"), where=str(config.adapter), hint=t("run stage 1 first, or leave adapter out")
            )
        family.load_adapter(model, config.adapter)
    return model


def start_digests(config: StageConfig, *, data: bool = True) -> dict[str, str]:
    """Digests of all that a stage reads: data (unless left out), bases or checkpoint, adapter.

    Raises:
        DataError: one of them is missing.
    """
    digests = {"data": _data_digest(config)} if data else {}
    if config.init_from is not None:
        digests["init_from"] = path_digest(config.init_from)
    else:
        folders = base_folders(config)
        digests |= {part: path_digest(getattr(folders, part)) for part in ZOO}
    if config.adapter is not None:
        digests["adapter"] = path_digest(config.adapter)
    return digests


def _data_digest(config: StageConfig) -> str:
    """Digest of the data file; of a folder, of its shards by name; of a mixture, of its text and all that is in it."""
    if config.unified is None:
        return _file_digest(config.data)
    if config.data.suffix not in (".yaml", ".yml"):
        return _records_digest(config.data)
    from bettersynth.train.unified_data import read_sources

    own = _file_digest(config.data)
    return digest_json([own, *(_records_digest(source.data) for source in read_sources(config.data, config.images))])


def _records_digest(path: Path) -> str:
    from bettersynth.formats.unified_files import record_files

    files = record_files(path)
    if files == [path]:
        return digest_file(path)
    return digest_json([[file.relative_to(path).as_posix(), digest_file(file)] for file in files])


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise DataError(t("data file not found"), where=str(path))
    return digest_file(path)


def path_digest(path: Path) -> str:
    """Digest of a file, of a finished artifact, or of all files in a folder by name and content."""
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        raise DataError(t("not found"), where=str(path))
    if Artifact.exists(path):
        return Artifact.load(path).digest
    files = sorted(item for item in path.rglob("*") if item.is_file() and not item.name.startswith("."))
    return digest_json([[item.relative_to(path).as_posix(), digest_file(item)] for item in files])
