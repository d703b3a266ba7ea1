"""Our checkpoints in VLMEvalKit: its ``run.py`` with a model of ours among its models.

    python -m bettersynth.eval.harnesses.vlmevalkit_model NAME=CHECKPOINT run.py --data MMBench_DEV_EN --model NAME

The class follows VLMEvalKit's ``BaseModel``: messages are lists of ``{"type": "text" | "image", "value": ...}``.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.eval.harnesses import _requests
from bettersynth.infer.protocols import Decoding

try:
    from vlmeval.vlm.base import BaseModel
except ModuleNotFoundError:  # usable without VLMEvalKit by anything that speaks its messages
    BaseModel = object


class BetterSynthVLM(BaseModel):  # type: ignore[misc]
    """A VLMEvalKit model over a checkpoint; greedy, one picture per question.

    Args:
        model_path: checkpoint folder.
        max_new_tokens: longest answer.
        settings: ``device``, ``dtype``, ``model_zoo``, ``image_aspect_ratio``.
    """

    INSTALL_REQ = False
    INTERLEAVE = False
    allowed_types = ("text", "image")

    def __init__(self, model_path: str, max_new_tokens: int = 1024, **settings: Any) -> None:
        super().__init__()
        self.chat = _requests.load_model(model_path, batch_size=1, **settings)
        self.decoding = Decoding(max_new_tokens)

    def use_custom_prompt(self, dataset: str | None) -> bool:
        """Prompts are the data set's own: a score must not depend on wording of ours."""
        return False

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer to one message: its texts joined by newlines, its first picture."""
        text = "\n".join(part["value"] for part in message if part["type"] == "text")
        pictures = [part["value"] for part in message if part["type"] == "image"]
        return self.chat.generate([_requests.request("1", text, pictures)], self.decoding)[0].text


def register(name: str, model_path: str, **settings: Any) -> None:
    """Put a checkpoint among VLMEvalKit's models.

    Raises:
        ConfigError: VLMEvalKit is not installed.
    """
    try:
        from vlmeval.config import supported_VLM
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "vlmeval":
            raise
        raise ConfigError(
            t("VLMEvalKit is not installed"), hint=t("install it from its repository: open-compass/VLMEvalKit")
        ) from error
    supported_VLM[name] = partial(BetterSynthVLM, model_path=model_path, **settings)


def main(words: Sequence[str]) -> None:
    """Register ``NAME=CHECKPOINT`` pairs, then run the given script with the rest of the words.

    Raises:
        ConfigError: no pair or no script.
    """
    pairs = [word.partition("=") for word in words]
    count = next((n for n, (_, mark, _) in enumerate(pairs) if not mark), len(pairs))
    if not count or count == len(words):
        raise ConfigError(t("needed: {names}", names="NAME=CHECKPOINT … run.py"))
    for name, _, folder in pairs[:count]:
        register(name, folder)
    sys.argv = list(words[count:])
    runpy.run_path(words[count], run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BetterSynthError as error:
        print(error.render(), file=sys.stderr)
        sys.exit(error.exit_code)
