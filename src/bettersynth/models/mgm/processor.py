"""Records to tokens, labels and pixels for MGM. NumPy and the tokenizers library; batches are joined in collate.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import LLAVA_IMAGE, Conversation, ImageRef
from bettersynth.media.open import open_image
from bettersynth.media.resize import to_square_pixels
from bettersynth.models.family import IGNORE_LABEL, IMAGE_MARKER, Batch, Example, Pixels, Rejected
from bettersynth.models.mgm.collate import collate, pack
from bettersynth.models.mgm.config import MgmConfig
from bettersynth.models.mgm.template import (
    CONTROL_TOKENS,
    Prompt,
    Turn,
    drop_leading_answer,
    image_refusal,
    normalise_tags,
    refusal,
    render,
    render_question,
)

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""What is copied into a checkpoint, as far as it exists."""


class TextTokenizer:
    """Gemma's tokenizer, read straight from ``tokenizer.json``.

    transformers 5 rewrites the pre-tokenizer of Gemma files when it loads them, which changes ids around spaces; the
    file itself is what the models were trained with.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise DataError(
                t("tokenizer not found"),
                where=str(path),
                hint=t("a folder with only tokenizer.model must first be saved with its tokenizer.json"),
            )
        try:
            self.backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises nothing finer
            raise DataError(t("unreadable tokenizer"), where=str(path), got=error) from error
        self.backend.no_truncation()
        self.backend.no_padding()
        self.control_ids = {self.backend.token_to_id(token) for token in CONTROL_TOKENS} - {None}
        self.bos_id = self._special("<bos>", path)
        self.eos_id = self._special("<eos>", path)
        self.pad_id = self._special("<pad>", path)

    def _special(self, token: str, path: Path) -> int:
        found = self.backend.token_to_id(token)
        if found is None:
            raise DataError(t("the tokenizer has no {token}; it is not Gemma's", token=token), where=str(path))
        return int(found)

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids without BOS, and the character range of each token."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without control tokens, stripped."""
        return str(self.backend.decode([i for i in ids if i not in self.control_ids], skip_special_tokens=True)).strip()


def tokenize_prompt(tokenizer: TextTokenizer, prompt: Prompt, *, has_images: bool) -> tuple[list[int], list[int]]:
    """Ids (BOS first, -200 for each image tag) and labels of a rendered conversation.

    Pieces between image tags are tokenised separately. A token belongs to a target if it starts inside it, so a token
    that merges the header's newline with the answer's first one is not learnt.
    """
    ids, labels = [tokenizer.bos_id], [IGNORE_LABEL]
    pieces = prompt.text.split(LLAVA_IMAGE) if has_images else [prompt.text]
    offset = 0

    def is_target(position: int) -> bool:
        return any(start <= position < end for start, end in prompt.targets)

    for index, piece in enumerate(pieces):
        if index:
            ids.append(IMAGE_MARKER)
            labels.append(IMAGE_MARKER if is_target(offset) else IGNORE_LABEL)
            offset += len(LLAVA_IMAGE)
        piece_ids, ranges = tokenizer.encode(piece)
        ids.extend(piece_ids)
        labels.extend(
            token if is_target(offset + start) else IGNORE_LABEL
            for token, (start, _) in zip(piece_ids, ranges, strict=True)
        )
        offset += len(piece)
    return ids, labels


@dataclass(frozen=True)
class MgmProcessor:
    """The processor of one model: see :class:`bettersynth.models.family.Processor`.

    Attributes:
        tokenizer: text to ids.
        tokens_per_image: places of a picture in the sequence.
        image_size_aux: side in pixels of the array made of a picture.
        image_aspect_ratio: ``pad`` or ``square``.
        max_length: longest sequence after splicing, in tokens; what is longer is rejected, never cut.
        image_root: folder that relative image paths start from.
        is_packed: training batches are one row without padding.
    """

    tokenizer: TextTokenizer
    tokens_per_image: int
    image_size_aux: int
    image_aspect_ratio: str
    max_length: int
    image_root: Path
    is_packed: bool = False

    def encode(self, conversation: Conversation) -> Example | Rejected:
        """Tokens and labels of a record, or the reason why it cannot be learnt from. Opens no picture."""
        images = conversation.images
        turns: list[Turn] = conversation.turns()
        if images or any(segment.kind == "image" for segment in conversation.segments):
            turns = normalise_tags(turns)
        turns = drop_leading_answer(turns)
        refused = refusal(turns) or image_refusal(turns, len(images))
        if refused:
            return Rejected(conversation.id, refused.reason, refused.detail)
        ids, labels = tokenize_prompt(self.tokenizer, render(turns), has_images=bool(images))
        num_tokens = len(ids) + len(images) * (self.tokens_per_image - 1)
        if num_tokens > self.max_length:
            detail = t("{n} tokens, image tokens included; at most {most}", n=num_tokens, most=self.max_length)
            return Rejected(conversation.id, "too_long", detail)
        if all(label == IGNORE_LABEL for label in labels[1:]):
            return Rejected(conversation.id, "no_target", t("nothing in this record can be learnt"))
        return Example(conversation.id, ids, labels, images, num_tokens)

    def encode_question(self, key: str, text: str, image: ImageRef | None) -> Example:
        """Tokens of one user turn to be answered; an image tag in ``text`` is plain text.

        Raises:
            DataError: longer than ``max_length``.
        """
        marked = f"{LLAVA_IMAGE}\n{text}" if image is not None else text
        pieces = render_question(marked).split(LLAVA_IMAGE, 1) if image is not None else [render_question(marked)]
        ids = [self.tokenizer.bos_id]
        for index, piece in enumerate(pieces):
            ids += [IMAGE_MARKER] * (index > 0) + self.tokenizer.encode(piece)[0]
        num_tokens = len(ids) + (self.tokens_per_image - 1 if image else 0)
        if num_tokens > self.max_length:
            raise DataError(
                t("the question is too long for the model"), where=key, got=num_tokens, expected=f"<= {self.max_length}"
            )
        return Example(key, ids, [IGNORE_LABEL] * len(ids), (image,) if image else (), num_tokens)

    def prepare_image(self, source: Path | bytes, name: str | None = None) -> Pixels:
        """uint8 (S, S, 3) of one picture, S = ``image_size_aux``. Raises DataError naming what cannot be decoded."""
        image = open_image(source, name=name)
        return to_square_pixels(image, size_px=self.image_size_aux, aspect_ratio=self.image_aspect_ratio)

    def load_pixels(self, example: Example) -> list[Pixels]:
        """The example's pictures; a missing, truncated or damaged one is an error that names file and record."""
        return [
            self.prepare_image(self.image_root / image.path, name=f"{self.image_root / image.path} ({example.key})")
            for image in example.images
        ]

    def collate(
        self, examples: Sequence[Example], pixels: Sequence[Sequence[Pixels]], *, is_left_padded: bool = False
    ) -> Batch:
        """One padded or packed batch; ``pixels[i]`` holds the pictures of ``examples[i]``."""
        for example, group in zip(examples, pixels, strict=True):
            if len(group) != len(example.images):
                raise DataError(
                    t("wrong number of pictures"), where=example.key, got=len(group), expected=str(len(example.images))
                )
        if self.is_packed:
            return pack(examples, pixels, tokens_per_image=self.tokens_per_image, pad_id=self.tokenizer.pad_id)
        return collate(
            examples,
            pixels,
            tokens_per_image=self.tokens_per_image,
            pad_id=self.tokenizer.pad_id,
            is_left_padded=is_left_padded,
        )


def build_processor(
    config: MgmConfig, tokenizer_folder: Path, *, image_aspect_ratio: str, max_length: int, image_root: Path
) -> MgmProcessor:
    """The processor for a model's sizes and its tokenizer's folder."""
    return MgmProcessor(
        TextTokenizer(tokenizer_folder),
        config.tokens_per_image,
        config.image_size_aux,
        image_aspect_ratio,
        max_length,
        image_root,
    )
