"""Look at what a sample teaches: the text as the model sees it, piece by piece, and which pieces are targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.sample import LLAVA_IMAGE, Conversation
from bettersynth.models.family import IMAGE_MARKER, Processor, Rejected

if TYPE_CHECKING:
    from bettersynth.models.bagel.records import UnifiedExample
    from bettersynth.models.bagel.tokens import BagelTokenizer


@dataclass(frozen=True, slots=True)
class LossMask:
    """One sample as the trainer sees it.

    Attributes:
        pieces: (text, is_target) in order; a picture is the text ``<image>``. Empty for a rejected sample.
        num_tokens: length in the model, image tokens included.
        num_targets: tokens the loss is taken over.
        num_image_tokens: positions taken by pictures.
        rejected: why the sample is not trained on, or None.
    """

    key: str
    pieces: tuple[tuple[str, bool], ...]
    num_tokens: int
    num_targets: int
    num_image_tokens: int
    rejected: Rejected | None = None


def loss_mask(conversation: Conversation, processor: Processor) -> LossMask:
    """Tokenise a conversation as for training and say which text is learnt.

    Raises:
        ConfigError: the processor has no tokenizer to turn ids into text.
    """
    encoded = processor.encode(conversation)
    if isinstance(encoded, Rejected):
        return LossMask(conversation.id, (), 0, 0, 0, encoded)
    marked = [
        (token, index > 0 and label >= 0)
        for index, (token, label) in enumerate(zip(encoded.input_ids, encoded.labels, strict=True))
    ]
    pieces: list[tuple[str, bool]] = []
    for (is_image, is_target), run in groupby(marked, key=lambda item: (item[0] == IMAGE_MARKER, item[1])):
        ids = [token for token, _ in run]
        pieces.append((LLAVA_IMAGE * len(ids) if is_image else _decode(processor, ids), is_target))
    num_markers = encoded.input_ids.count(IMAGE_MARKER)
    return LossMask(
        key=encoded.key,
        pieces=tuple(pieces),
        num_tokens=encoded.num_tokens,
        num_targets=sum(is_target for _, is_target in marked),
        num_image_tokens=encoded.num_tokens - len(encoded.input_ids) + num_markers,
    )


def unified_mask(example: UnifiedExample, tokenizer: BagelTokenizer) -> LossMask:
    """A sample of joint training: its texts, and its pictures by what they are there for.

    ``<seen>`` is a picture as the vision encoder sees it, ``<latents>`` one as clean latents, ``<drawn>`` one to be
    drawn; texts and drawn pictures are what is learnt.
    """
    texts = iter(example.sample.text_ids)
    pieces: list[tuple[str, bool]] = []
    for item in example.sample.plan:
        if item.type == "text":
            pieces.append((tokenizer.decode(next(texts)), item.loss))
        else:
            seen = "<seen>" if item.type == "vit_image" else "<latents>"
            pieces.append(("<drawn>" if item.loss else seen, item.loss))
    return LossMask(
        key=example.key,
        pieces=tuple(pieces),
        num_tokens=example.num_tokens,
        num_targets=example.num_text_targets + example.num_image_targets,
        num_image_tokens=example.num_vit + example.num_vae,
    )


def _decode(processor: Any, ids: Sequence[int]) -> str:
    """Text of ids with control tokens shown."""
    backend = getattr(getattr(processor, "tokenizer", None), "backend", None)
    if backend is None:
        raise ConfigError(t("this model family cannot show its tokens as text"), got=type(processor).__name__)
    return str(backend.decode(list(ids), skip_special_tokens=False))


def render_mask(mask: LossMask, *, is_coloured: bool) -> str:
    """The sample as text for a terminal: targets green, or between ``[[`` and ``]]`` without colour."""
    if mask.rejected is not None:
        return t(
            "{key}: not trained on: {reason}, {detail}",
            key=mask.key,
            reason=mask.rejected.reason,
            detail=mask.rejected.detail,
        )
    start, end = ("\x1b[32m", "\x1b[0m") if is_coloured else ("[[", "]]")
    text = "".join(f"{start}{piece}{end}" if is_target else piece for piece, is_target in mask.pieces)
    counts = t(
        "{key}: {tokens} tokens, {images} of them image, {targets} targets",
        key=mask.key,
        tokens=mask.num_tokens,
        images=mask.num_image_tokens,
        targets=mask.num_targets,
    )
    return f"{counts}\n{text}"
