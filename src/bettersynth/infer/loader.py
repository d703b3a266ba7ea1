"""From a name in a recipe to a model: ``fake``, or a folder in Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path

from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.infer.protocols import Captioner, ImageTextScorer

_SCORERS = ("clip",)
_CAPTIONERS = ("blip", "blip-2")


def model_type(folder: Path) -> str:
    """The ``model_type`` of a folder's config.json.

    Raises:
        ConfigError: no such folder or file.
    """
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(t("no model in this folder"), got=str(folder), expected="config.json") from error


def load_scorer(model: str, *, device: str = "auto") -> ImageTextScorer:
    """An image-text scorer: ``fake``, or a CLIP folder.

    Raises:
        ConfigError: no such folder, or another kind of model. MissingExtraError: torch is not installed.
    """
    if model == "fake":
        from bettersynth.infer.fake import FakeScorer

        return FakeScorer()
    _check(Path(model), _SCORERS, t("an image-text scorer"))
    try:
        from bettersynth.infer.scorer_hf import ClipScorer

        return ClipScorer(Path(model), device=device)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("an image-text scorer"), "train", missing=error.name) from error


def load_captioner(model: str, *, device: str = "auto") -> Captioner:
    """A captioner: ``fake``, or a BLIP or BLIP-2 folder; raises like :func:`load_scorer`."""
    if model == "fake":
        from bettersynth.infer.fake import FakeCaptioner

        return FakeCaptioner()
    _check(Path(model), _CAPTIONERS, t("a captioner"))
    try:
        from bettersynth.infer.captioner_hf import BlipCaptioner

        return BlipCaptioner(Path(model), device=device)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("a captioner"), "train", missing=error.name) from error


def _check(folder: Path, kinds: tuple[str, ...], what: str) -> None:
    kind = model_type(folder)
    if kind not in kinds:
        raise ConfigError(t("not {what}", what=what), where=str(folder), got=kind, expected=", ".join(kinds))
