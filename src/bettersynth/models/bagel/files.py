"""The files of an official folder, looked for without torch, so that a missing one is told at once."""

from __future__ import annotations

from pathlib import Path

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

LLM_FILE, VIT_FILE, VAE_FILE, GLUE_FILE = "llm_config.json", "vit_config.json", "vae_config.json", "bagel_config.json"
MODEL_FILES = ("ema.safetensors", "model.safetensors", "trained_model.pt")
"""Looked for in this order; the second is what the original trainer writes beside its average."""
AE_FILE = "ae.safetensors"
TOKENIZER_FILE = "tokenizer.json"


def find_model_file(folder: Path) -> Path:
    """The weight file of a folder.

    Raises:
        DataError: there is none.
    """
    for name in MODEL_FILES:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        t("no weights found") if folder.is_dir() else t("model folder not found"),
        where=str(folder),
        expected=t("one of: {names}", names=", ".join(MODEL_FILES)),
    )


def check_folder(
    folder: Path, *, where: str = "", weights: Path | None = None, has_vae: bool = True, has_tokenizer: bool = False
) -> None:
    """Check that a model can be loaded from here.

    Args:
        folder: the official folder.
        where: the flag that named it.
        weights: a weight file that takes the place of the folder's.
        has_vae: whether the autoencoder is needed.
        has_tokenizer: whether the tokenizer is needed as well.

    Raises:
        DataError: no folder, or files that it lacks, all of them named.
    """
    place = f"{where} {folder}".strip()
    if not folder.is_dir():
        raise DataError(t("model folder not found"), where=place)
    if weights is not None and not weights.is_file():
        raise DataError(t("weight file not found"), where=str(weights))
    needed = [LLM_FILE, VIT_FILE, *[AE_FILE] * has_vae, *[TOKENIZER_FILE] * has_tokenizer]
    missing = [name for name in needed if not (folder / name).is_file()]
    if weights is None and not any((folder / name).is_file() for name in MODEL_FILES):
        missing.append(MODEL_FILES[0])
    if not missing:
        return
    if (folder / "config.json").is_file() and LLM_FILE in missing:
        hint = t("this looks like a folder of MGM: talk with it by bettersynth chat")
    elif missing == [AE_FILE]:
        hint = t("copy the autoencoder of the model that this one was trained from: it is never trained")
    else:
        hint = t("a folder of BAGEL holds {names}", names=", ".join((*needed, MODEL_FILES[0])))
    raise DataError(t("files are missing in the model folder"), where=place, got=", ".join(missing), hint=hint)
