"""What a BAGEL model reads of a conversation before it answers: texts, pictures, and what it said itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.infer.unified_types import Part
from bettersynth.models.bagel.files import TOKENIZER_FILE
from bettersynth.models.bagel.interleave import Contexts, Interleaver
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.resize import ResizeRule
from bettersynth.models.bagel.tokens import BagelTokenizer

_LARGEST_DEFAULT_PX = 1024


@dataclass
class Memory:
    """What a model has read of one conversation, and what it is still to read.

    ``is_whole``: pictures were read as latents too and all guidance contexts exist, so that a picture can be drawn.
    """

    contexts: Contexts
    parts: list[Part] = field(default_factory=list)
    num_read: int = 0
    is_whole: bool = True


class Reader:
    """Reads conversations with one model.

    Args:
        interleaver: the model, and how its input pictures are resized.
        tokenizer: without one, texts are given and come back as ids.
    """

    def __init__(self, interleaver: Interleaver, tokenizer: BagelTokenizer | None) -> None:
        self.interleaver, self.tokenizer = interleaver, tokenizer

    def empty(self) -> Contexts:
        """Nothing read yet; the picture to come is the model's largest square up to 1024."""
        config = self.interleaver.model.config
        side = min(_LARGEST_DEFAULT_PX, config.max_latent_size * config.latent_stride_px)
        return Contexts.empty((side, side))

    def encode(self, text: str) -> tuple[int, ...]:
        """A text as ids; ConfigError without a tokenizer."""
        if self.tokenizer is None:
            raise ConfigError(
                t("the model folder has no tokenizer, so texts must be given as ids"), expected=TOKENIZER_FILE
            )
        return tuple(self.tokenizer.encode(text))

    def text(self, ids: Sequence[int]) -> str:
        """Ids as a text; "" without a tokenizer."""
        return self.tokenizer.decode(ids) if self.tokenizer else ""

    def catch_up(self, memory: Memory, *, draws: bool) -> None:
        """Read what is new; everything anew if a picture is to come and some of it was only read to be understood."""
        if draws and not memory.is_whole:
            memory.contexts, memory.num_read, memory.is_whole = self.empty(), 0, True
        understands = not draws and not (memory.num_read and memory.is_whole)
        for part in memory.parts[memory.num_read :]:
            value = part.value
            if isinstance(value, Image.Image):
                self.interleaver.read(memory.contexts, value, is_understanding=understands)
            else:
                ids = self.encode(value) if isinstance(value, str) else value
                if part.is_own and not understands:
                    self.interleaver.read_answer(memory.contexts, ids)
                else:
                    self.interleaver.read(memory.contexts, ids, is_understanding=understands)
            memory.is_whole = memory.is_whole and not understands
        memory.num_read = len(memory.parts)


def rules_of(model: BagelModel) -> tuple[ResizeRule, ResizeRule]:
    """How pictures are resized for latents and for the ViT: as the published weights' rules, scaled to the tables.

    A table of 64 latent positions gives (1024, 512, 16), one of 70 ViT positions (980, 224, 14).
    """
    config = model.config
    stride, patch = config.latent_stride_px, config.vit.patch_size
    most, side = config.max_latent_size, config.vit_max_num_patch_per_side
    return (
        ResizeRule(most * stride, max(1, most // 2) * stride, stride),
        ResizeRule(side * patch, max(1, side * 16 // 70) * patch, patch),
    )
