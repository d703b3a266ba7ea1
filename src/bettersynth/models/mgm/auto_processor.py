"""Questions and pictures to tensors, as transformers' AutoProcessor hands it out for our checkpoints.

processor = AutoProcessor.from_pretrained(folder)
prompt = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", ...}]}])
inputs = processor(text=prompt, images=[picture])
print(processor.batch_decode(model.generate(**inputs)[:, inputs["input_ids"].shape[1] :])[0])
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import LLAVA_IMAGE
from bettersynth.models.family import IMAGE_MARKER
from bettersynth.models.mgm.auto_config import local_folder
from bettersynth.models.mgm.convert import copy_tokenizer
from bettersynth.models.mgm.processor import MgmProcessor, build_processor
from bettersynth.models.mgm.template import GPT, HUMAN, refusal, render, render_question

_ROLES = {"user": HUMAN, "assistant": GPT}


class MgmGemmaProcessor:
    """Chat template, tokenizer and pictures of one checkpoint.

    Args:
        inner: what turns text into ids and pictures into pixels.
        folder: the checkpoint, whose tokenizer files :meth:`save_pretrained` copies.
    """

    def __init__(self, inner: MgmProcessor, folder: Path) -> None:
        self.inner, self.folder = inner, folder
        self.tokenizer = inner.tokenizer

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> MgmGemmaProcessor:
        """The processor of a checkpoint folder or hub repository.

        Args:
            options: ``model_zoo`` (where towers lie that the checkpoint does not describe).
        """
        from bettersynth.models.mgm.family import checkpoint_config
        from bettersynth.models.weights import read_json

        folder = local_folder(name, options)
        fields = read_json(folder / "config.json")
        zoo = options.get("model_zoo")
        inner = build_processor(
            checkpoint_config(folder, model_zoo=Path(zoo) if zoo else None),
            folder,
            image_aspect_ratio=str(fields.get("image_aspect_ratio", "square")),
            max_length=int(fields.get("tokenizer_model_max_length", 2048)),
            image_root=Path(),
        )
        return cls(inner, folder)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """Called by transformers for classes that come with a checkpoint; there is nothing to note."""

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Copy the tokenizer's files."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        copy_tokenizer(self.folder, Path(folder))

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **options: Any
    ) -> Any:
        """The prompt of a conversation that ends with the user; with ``tokenize=True`` its tensors.

        Args:
            conversation: ``{"role": "user" | "assistant", "content": text, or a list of {"type": "image", "image": ...}
                and {"type": "text", "text": ...}}``.

        Raises:
            DataError: roles do not alternate, or a turn is empty or holds control tokens.
        """
        turns, pictures = [], []
        for message in conversation:
            parts = message["content"]
            parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
            found = [part for part in parts if part["type"] == "image"]
            pictures += [part.get("image", part.get("url", part.get("path"))) for part in found]
            text = "\n".join(str(part["text"]) for part in parts if part["type"] == "text")
            turns.append(
                (_ROLES.get(str(message["role"]), str(message["role"])), f"{LLAVA_IMAGE}\n" * len(found) + text)
            )
        asked, last = (turns[:-1], turns[-1]) if add_generation_prompt and turns else (turns, None)
        whole = [*asked, last, (GPT, "?")] if last is not None else asked
        refused = refusal([turn for turn in whole if turn is not None])
        if refused is not None:
            raise DataError(t("not a conversation that can be answered"), got=refused.detail)
        prompt = render(asked).text + (render_question(last[1]) if last is not None else "")
        if not options.get("tokenize"):
            return prompt
        batch = self(text=prompt, images=[picture for picture in pictures if picture is not None] or None)
        return batch if options.get("return_dict") else batch["input_ids"]

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **options: Any) -> BatchFeature:
        """A left-padded batch.

        Args:
            images: pictures for all ``<image>`` tags of all texts, in order: paths, bytes, arrays or PIL images.
            text: rendered prompts.

        Returns:
            ``input_ids`` (B, L) with -200 at every place of a picture, ``attention_mask`` (B, L), and
            ``images`` (I, S, S, 3) uint8 when there are any.

        Raises:
            DataError: no text, other than one picture per tag, a damaged picture, or a prompt that is too long.
        """
        texts = [text] if isinstance(text, str) else list(text or ())
        flat = _flat(images)
        tags = sum(one.count(LLAVA_IMAGE) for one in texts) if flat else 0
        if not texts or tags != len(flat):
            raise DataError(t("{tags} image tags for {images} pictures", tags=tags, images=len(flat)))
        rows = [self._ids(number, one, has_images=bool(flat)) for number, one in enumerate(texts)]
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_id)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, length - len(row) :] = torch.tensor(row)
            mask[number, length - len(row) :] = 1
        data: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": mask}
        if flat:
            arrays = [self.inner.prepare_image(_source(item), name=_name(item, n)) for n, item in enumerate(flat)]
            data["images"] = torch.from_numpy(np.stack(arrays))
        return BatchFeature(data)

    def _ids(self, number: int, prompt: str, *, has_images: bool) -> list[int]:
        ids = [self.tokenizer.bos_id]
        for index, piece in enumerate(prompt.split(LLAVA_IMAGE) if has_images else [prompt]):
            ids += [IMAGE_MARKER] * (self.inner.tokens_per_image if index else 0) + self.tokenizer.encode(piece)[0]
        if len(ids) > self.inner.max_length:
            raise DataError(
                t("the question is too long for the model"),
                where=f"text[{number}]",
                got=len(ids),
                expected=f"<= {self.inner.max_length}",
            )
        return ids

    def decode(self, ids: Any, **_: Any) -> str:
        """Text of ids without control tokens and picture places, stripped."""
        return self.tokenizer.decode([int(i) for i in ids if int(i) >= 0])

    def batch_decode(self, batch: Any, **_: Any) -> list[str]:
        """Text of every row."""
        return [self.decode(row) for row in batch]


def _flat(images: Any) -> list[Any]:
    if images is None:
        return []
    if isinstance(images, list | tuple):
        return [picture for part in images for picture in _flat(part)]
    return [images]


def _name(picture: Any, number: int) -> str:
    """How an error calls a picture: its place, and its file where it has one."""
    path = picture if isinstance(picture, str | Path) else getattr(picture, "filename", "")
    return f"images[{number}] {path}".rstrip()


def _source(picture: Any) -> Path | bytes:
    """A path or an encoded file; arrays and PIL images are encoded without loss."""
    if isinstance(picture, str | Path):
        return Path(picture)
    if isinstance(picture, bytes):
        return picture
    from PIL import Image

    image = Image.fromarray(np.asarray(picture)) if not hasattr(picture, "save") else picture
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return stream.getvalue()
