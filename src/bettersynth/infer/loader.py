"""From a name in a recipe to a model: ``fake``, or a folder in Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.infer.protocols import (
    Captioner,
    FaceDetector,
    ImageClassifier,
    ImageTextMatcher,
    ImageTextScorer,
    LineDetector,
    PhraseGrounder,
    Segmenter,
    TextConverter,
)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(type(found).__name__)
    except (OSError, ValueError) as error:
        raise ConfigError(t("no model in this folder"), got=str(folder), expected="config.json") from error
    return found


def model_type(folder: Path) -> str:
    """The ``model_type`` of a folder's config.json.

    Raises:
        ConfigError: no such folder or file.
    """
    config = _config(folder)
    if "model_type" not in config:
        raise ConfigError(t("no model in this folder"), got=str(folder), expected="config.json")
    return str(config["model_type"])


def architectures(folder: Path) -> tuple[str, ...]:
    """The ``architectures`` of a folder's config.json; raises like :func:`model_type`."""
    return tuple(str(name) for name in _config(folder).get("architectures") or ())


def load_scorer(model: str, *, device: str = "auto") -> ImageTextScorer:
    """An image-text scorer: ``fake``, or a CLIP folder.

    Raises:
        ConfigError: no such folder, or another kind of model. MissingExtraError: torch is not installed.
    """
    if model == "fake":
        from bettersynth.infer.fake import FakeScorer

        return FakeScorer()
    what = t("an image-text scorer")
    _check(Path(model), ("clip",), what)

    def build() -> ImageTextScorer:
        from bettersynth.infer.scorer_hf import ClipScorer

        return ClipScorer(Path(model), device=device)

    return _with_torch(build, what)


def load_captioner(model: str, *, device: str = "auto") -> Captioner:
    """A captioner: ``fake``, or a BLIP or BLIP-2 folder; raises like :func:`load_scorer`."""
    if model == "fake":
        from bettersynth.infer.fake import FakeCaptioner

        return FakeCaptioner()
    what = t("a captioner")
    _check(Path(model), ("blip", "blip-2"), what)

    def build() -> Captioner:
        from bettersynth.infer.captioner_hf import BlipCaptioner

        return BlipCaptioner(Path(model), device=device)

    return _with_torch(build, what)


def load_classifier(model: str, *, device: str = "auto") -> ImageClassifier:
    """A picture classifier: ``fake``, or the folder of one; raises like :func:`load_scorer`."""
    if model == "fake":
        from bettersynth.infer.fake import FakeClassifier

        return FakeClassifier()
    what = t("an image classifier")
    _check_head(Path(model), ("ForImageClassification", "AestheticsPredictor"), what)

    def build() -> ImageClassifier:
        from bettersynth.infer.classifier_hf import HfClassifier

        return HfClassifier(Path(model), device=device)

    return _with_torch(build, what)


def load_matcher(model: str, *, device: str = "auto") -> ImageTextMatcher:
    """An image-text matcher: ``fake``, or the folder of a BLIP for retrieval; raises like :func:`load_scorer`."""
    if model == "fake":
        from bettersynth.infer.fake import FakeMatcher

        return FakeMatcher()
    what = t("an image-text matcher")
    _check_head(Path(model), ("BlipForImageTextRetrieval",), what)

    def build() -> ImageTextMatcher:
        from bettersynth.infer.matcher_hf import BlipMatcher

        return BlipMatcher(Path(model), device=device)

    return _with_torch(build, what)


def load_grounder(model: str, *, device: str = "auto") -> PhraseGrounder:
    """A phrase grounder: ``fake``, or an OWL-ViT folder; raises like :func:`load_scorer`."""
    if model == "fake":
        from bettersynth.infer.fake import FakeGrounder

        return FakeGrounder()
    what = t("a phrase grounder")
    _check(Path(model), ("owlvit",), what)

    def build() -> PhraseGrounder:
        from bettersynth.infer.grounder_hf import OwlGrounder

        return OwlGrounder(Path(model), device=device)

    return _with_torch(build, what)


def load_segmenter(model: str, *, device: str = "auto") -> Segmenter:
    """A foreground segmenter: ``fake``, or the folder of a semantic segmenter; raises like :func:`load_scorer`."""
    if model == "fake":
        from bettersynth.infer.fake import FakeSegmenter

        return FakeSegmenter()
    what = t("a foreground segmenter")
    _check_head(Path(model), ("ForSemanticSegmentation",), what)

    def build() -> Segmenter:
        from bettersynth.infer.segmenter_hf import HfSegmenter

        return HfSegmenter(Path(model), device=device)

    return _with_torch(build, what)


def load_faces(model: str, *, device: str = "auto") -> FaceDetector:
    """A face detector: ``fake``, a cascade file, or the empty name for OpenCV's own cascade.

    Raises:
        MissingExtraError: OpenCV is not installed. DataError: no cascade in this file.
    """
    if model == "fake":
        from bettersynth.infer.fake import FakeFaces

        return FakeFaces()
    try:
        from bettersynth.infer.faces_cv import CascadeFaces

        return CascadeFaces(Path(model) if model else None)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("a face detector"), "faces", missing=error.name) from error


def load_lines(model: str, *, device: str = "auto") -> LineDetector:
    """A detector of straight lines: ``fake``, or the empty name for OpenCV's.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    if model == "fake":
        from bettersynth.infer.fake import FakeLines

        return FakeLines()
    try:
        from bettersynth.infer.lines_cv import HoughLines

        return HoughLines()
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("a line detector"), "faces", missing=error.name) from error


def load_converter(model: str, *, device: str = "auto") -> TextConverter:
    """A converter of Chinese characters: ``fake``, one of OpenCC's modes (``s2t``), or an OpenCC configuration file.

    Raises:
        MissingExtraError: OpenCC is not installed. ConfigError: it refuses the configuration.
    """
    if model == "fake":
        from bettersynth.infer.fake import FakeConverter

        return FakeConverter()
    try:
        from opencc import OpenCC
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("converting Chinese characters"), "chinese", missing=error.name) from error
    try:
        converter: TextConverter = OpenCC(model)
    except Exception as error:  # it raises what its compiled part raises
        raise ConfigError(t("cannot load the model"), where=model, got=str(error)) from error
    return converter


LOADERS: dict[str, Callable[..., Any]] = {
    "scorer": load_scorer,
    "captioner": load_captioner,
    "classifier": load_classifier,
    "matcher": load_matcher,
    "grounder": load_grounder,
    "segmenter": load_segmenter,
    "faces": load_faces,
    "lines": load_lines,
    "converter": load_converter,
}


def _with_torch(build: Callable[[], Any], what: str) -> Any:
    try:
        return build()
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "train", missing=error.name) from error


def _check(folder: Path, kinds: tuple[str, ...], what: str) -> None:
    kind = model_type(folder)
    if kind not in kinds:
        raise ConfigError(t("not {what}", what=what), where=str(folder), got=kind, expected=", ".join(kinds))


def _check_head(folder: Path, heads: tuple[str, ...], what: str) -> None:
    names = architectures(folder)
    if not any(head in name for name in names for head in heads):
        raise ConfigError(
            t("not {what}", what=what), where=str(folder), got=", ".join(names), expected=", ".join(heads)
        )
