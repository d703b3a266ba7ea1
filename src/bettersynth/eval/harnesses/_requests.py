"""What both harnesses need: pictures as files' bytes, prompts without image tags, and the checkpoint behind them."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.core.sample import ImageRef
from bettersynth.infer.protocols import ChatRequest

if TYPE_CHECKING:
    from bettersynth.infer.checkpoint import CheckpointChatModel

_LOG = logging.getLogger(__name__)
_TAG = re.compile(r"<image(?: ?\d+)?>\n?")


def load_model(path: str, *, batch_size: int | str = 16, device: str | None = None, **rest: Any) -> CheckpointChatModel:
    """The checkpoint as a chat model.

    Args:
        path: checkpoint folder.
        batch_size: as the harness passes it, perhaps as text.
        device: ``auto`` or None: CUDA where there is some.
        rest: ``dtype``, ``model_zoo``, ``image_aspect_ratio``.

    Raises:
        ConfigError: unknown settings, or a batch size that is no number.
        MissingExtraError: torch or transformers are not installed.
    """
    unknown = sorted(set(rest) - {"dtype", "model_zoo", "image_aspect_ratio"})
    if unknown:
        raise ConfigError(
            t("unknown arguments: {names}", names=", ".join(unknown)), expected="dtype, model_zoo, image_aspect_ratio"
        )
    if not str(batch_size).isdigit() or int(batch_size) < 1:
        raise ConfigError(t("not a whole number"), where="batch_size", got=batch_size)
    try:
        import torch

        from bettersynth.infer.checkpoint import CheckpointChatModel
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("evaluation"), "train", missing=error.name) from error
    if device in (None, "", "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if rest.get("model_zoo"):
        rest["model_zoo"] = Path(str(rest["model_zoo"]))
    return CheckpointChatModel(Path(path), batch_size=int(batch_size), device=str(device), **rest)


def request(key: str, text: str, pictures: Sequence[Any]) -> ChatRequest:
    """A request of the text and the first picture; the model puts its own image marker before the text.

    Args:
        pictures: paths, encoded bytes or PIL images. Of several only the first is shown, which is logged.
    """
    if len(pictures) > 1:
        _LOG.warning("%s: %d pictures, the first one is shown", key, len(pictures))
    prompt = _TAG.sub("", text).strip() if pictures else text
    return ChatRequest(key, prompt, _encoded(pictures[0]) if pictures else None)


def _encoded(picture: Any) -> ImageRef | bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        return ImageRef(str(picture))
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "PNG")  # lossless: the checkpoint sees the harness's pixels
    return stream.getvalue()
