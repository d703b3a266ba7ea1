"""Answers from an MGM checkpoint: batched greedy generation, each picture encoded once per call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_bytes, digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.core.sample import ImageRef
from bettersynth.infer.protocols import ChatRequest, ChatResponse, Decoding

if TYPE_CHECKING:
    import torch

    from bettersynth.models.family import Example

_PARTS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json")
_SHARED = 0.75
"""Beginnings are read apart when they are at most this share of a batch; two passes cost more than one."""
DTYPES = ("float32", "bfloat16", "float16")


def checkpoint_digest(folder: Path) -> str:
    """Digest of the files that decide the answers: config, tokenizer and weights (adapters and optimiser left out)."""
    names = {path for pattern in _WEIGHTS for path in folder.glob(pattern) if not path.name.startswith("mm_projector")}
    names |= {folder / name for name in _PARTS if (folder / name).is_file()}
    return digest_json({path.name: digest_file(path) for path in sorted(names)})


class CheckpointChatModel:
    """A :class:`bettersynth.infer.protocols.ChatModel` over a full MGM checkpoint.

    Args:
        folder: the checkpoint.
        batch_size: sequences generated together. Padding is on the left and masked, so that neighbours change an
            answer's logits only by rounding.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: torch device.
        model_zoo: where base models lie, if the checkpoint does not hold its towers.
        image_aspect_ratio: ``pad`` or ``square``; by default what the checkpoint's config says.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int = 16,
        dtype: str = "float32",
        device: str = "cpu",
        model_zoo: Path | None = None,
        image_aspect_ratio: str | None = None,
    ) -> None:
        import torch

        from bettersynth.models.mgm.family import FAMILY

        if dtype not in DTYPES:
            raise ConfigError(t("unsupported value"), where="dtype", got=dtype, expected=", ".join(DTYPES))
        self.model = FAMILY.load_checkpoint(folder, dtype=getattr(torch, dtype), model_zoo=model_zoo).to(device)
        config = self.model.config
        self.processor = FAMILY.processor(
            self.model,
            image_aspect_ratio=image_aspect_ratio or str(config.get("image_aspect_ratio")),
            max_length=int(config.get("tokenizer_model_max_length")),
            image_root=Path(),
        )
        self.batch_size, self.device = batch_size, device
        self.digest = digest_json(
            {"checkpoint": checkpoint_digest(folder), "dtype": dtype, "aspect": self.processor.image_aspect_ratio}
        )

    def generate(self, requests: Sequence[ChatRequest], decoding: Decoding) -> list[ChatResponse]:
        """Greedy answers, in the order of the requests.

        Raises:
            ConfigError: sampling or beams are asked for.
            DataError: a picture cannot be decoded, or a question is too long.
        """
        if decoding.do_sample or decoding.num_beams != 1:
            raise ConfigError(t("this model answers greedily only"), expected="do_sample=False, num_beams=1")
        pictures = [_picture_key(request.image) for request in requests]
        examples = [
            self.processor.encode_question(request.key, request.prompt, ImageRef(key) if key else None)
            for request, key in zip(requests, pictures, strict=True)
        ]
        features = _Features(self, requests, pictures)
        order = sorted(range(len(requests)), key=lambda i: (examples[i].num_tokens, i))
        answers: dict[int, ChatResponse] = {}
        for indices in _chunks(order, self.batch_size):
            chosen = [examples[i] for i in indices]
            asked = self._asked(chosen, features.of(indices), [pictures[i] for i in indices])
            if any(requests[i].choices for i in indices):
                responses = self._choose(chosen, asked, [requests[i].choices for i in indices])
            else:
                responses = self._answer(chosen, asked, decoding)
            answers.update(zip(indices, responses, strict=True))
        return [answers[index] for index in range(len(requests))]

    def continuation(self, request: ChatRequest, text: str) -> tuple[float, bool]:
        """Log-probability of ``text`` as the answer's beginning, and whether greedy decoding would write just that.

        Raises:
            DataError: an empty text, a damaged picture, or too long for the model.
        """
        import torch

        from bettersynth.models.family import Example

        ids = self.processor.tokenizer.encode(text)[0]
        if not ids:
            raise DataError(t("nothing to score"), where=request.key, got=repr(text))
        key = _picture_key(request.image)
        asked = self.processor.encode_question(request.key, request.prompt, ImageRef(key) if key else None)
        whole = [*asked.input_ids, *ids]
        example = Example(request.key, whole, whole, asked.images, asked.num_tokens + len(ids))
        with torch.inference_mode():
            batch = self._batch([example])
            embeds = self.model.embed(batch, _Features(self, [request], [key]).of([0]))
            hidden = self.model.hidden_states(embeds)[0, -len(ids) - 1 : -1]
            logits = self.model.logits(hidden)
            chosen = torch.tensor(ids, device=logits.device)
            scores = logits.log_softmax(-1).gather(1, chosen[:, None])
            return float(scores.sum()), bool((logits.argmax(-1) == chosen).all())

    def _batch(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        from bettersynth.models.mgm.collate import collate

        batch = collate(
            examples,
            [],
            tokens_per_image=self.processor.tokens_per_image,
            pad_id=self.processor.tokenizer.pad_id,
            is_left_padded=True,
        )
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _asked(
        self, examples: Sequence[Example], image_tokens: torch.Tensor | None, pictures: Sequence[str]
    ) -> dict[str, Any]:
        """What generation reads: whole sequences, or, where pictures are asked about several times, the beginnings that
        questions on one picture share and what follows in each."""
        import torch

        from bettersynth.models.mgm.generate import Prefix

        owner, groups = _groups(pictures)
        if len(groups) > _SHARED * len(examples) or image_tokens is None or "" in pictures:
            return {"batch": self._batch(examples), "image_tokens": image_tokens}
        lengths = [_common([examples[i].input_ids for i in group]) for group in groups]
        first = [examples[group[0]] for group in groups]
        heads = [_part(one, slice(0, length)) for one, length in zip(first, lengths, strict=True)]
        tails = [_part(one, slice(lengths[own], None)) for one, own in zip(examples, owner, strict=True)]
        rows = torch.tensor([group[0] for group in groups], device=image_tokens.device)
        own = torch.tensor(owner, device=image_tokens.device)
        return {"batch": self._batch(tails), "prefix": Prefix(self._batch(heads), image_tokens[rows], own)}

    def _choose(
        self, examples: Sequence[Example], asked: dict[str, Any], choices: Sequence[Sequence[str]]
    ) -> Iterator[ChatResponse]:
        """One forward pass: of the allowed words of each question, the one that is likeliest to come first."""
        from bettersynth.models.mgm.generate import next_logits

        tokenizer = self.processor.tokenizer
        first = {word: tokenizer.encode(word)[0][0] for word in dict.fromkeys(w for words in choices for w in words)}
        logits = next_logits(self.model, **asked)
        for example, words, row in zip(examples, choices, logits, strict=True):
            tokens = [first[word] for word in words]
            if not words or len(set(tokens)) < len(tokens):
                raise DataError(
                    t("these choices do not differ in their first token"), where=example.key, got=list(words)
                )
            best = int(row[tokens].argmax())
            yield ChatResponse(example.key, words[best], (tokens[best],), "stop")

    def _answer(self, examples: Sequence[Example], asked: dict[str, Any], decoding: Decoding) -> Iterator[ChatResponse]:
        from bettersynth.models.mgm.generate import generate_greedy

        tokenizer = self.processor.tokenizer
        results = generate_greedy(
            self.model, **asked, max_new_tokens=decoding.max_new_tokens, end_ids=frozenset({tokenizer.eos_id})
        )
        for example, result in zip(examples, results, strict=True):
            ids = tuple(result.token_ids)
            yield ChatResponse(example.key, tokenizer.decode(ids), ids, "stop" if result.is_ended else "length")


def _groups(pictures: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """The group of each question, and the questions of each group: those on one picture."""
    number: dict[str, int] = {}
    owner = [number.setdefault(picture, len(number)) for picture in pictures]
    groups: list[list[int]] = [[] for _ in number]
    for index, own in enumerate(owner):
        groups[own].append(index)
    return owner, groups


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """How many ids all sequences begin with alike; each keeps at least one of its own."""
    shortest = min(len(sequence) for sequence in sequences) - 1
    for place in range(shortest):
        if any(sequence[place] != sequences[0][place] for sequence in sequences):
            return place
    return shortest


def _part(example: Example, part: slice) -> Example:
    return replace(example, input_ids=example.input_ids[part], labels=example.labels[part])


class _Features:
    """Image tokens of the pictures of one call: encoded when first needed, forgotten after the last use."""

    def __init__(self, owner: CheckpointChatModel, requests: Sequence[ChatRequest], pictures: Sequence[str]) -> None:
        self.owner, self.requests, self.pictures = owner, requests, pictures
        self.uses = Counter(key for key in pictures if key)
        self.tokens: dict[str, torch.Tensor] = {}

    def of(self, indices: Sequence[int]) -> torch.Tensor | None:
        """(I, N, D) for the requests that have a picture, in order; None when none has."""
        import torch

        wanted = [index for index in indices if self.pictures[index]]
        if not wanted:
            return None
        new = {self.pictures[i]: i for i in wanted if self.pictures[i] not in self.tokens}
        if new:
            arrays = [self._pixels(index) for index in new.values()]
            pixels = torch.stack([torch.from_numpy(array.copy()) for array in arrays]).to(self.owner.device)
            with torch.inference_mode():
                self.tokens.update(zip(new, self.owner.model.encode_images(pixels), strict=True))
        stacked = torch.stack([self.tokens[self.pictures[index]] for index in wanted])
        for index in wanted:
            key = self.pictures[index]
            self.uses[key] -= 1
            if not self.uses[key]:
                del self.tokens[key]
        return stacked

    def _pixels(self, index: int) -> Any:
        image, key = self.requests[index].image, self.requests[index].key
        if isinstance(image, ImageRef):
            return self.owner.processor.prepare_image(Path(image.path), name=f"{image.path} ({key})")
        if isinstance(image, bytes):
            return self.owner.processor.prepare_image(image, name=t("the picture of {key}", key=key))
        raise DataError(t("not an image"), where=key, got=type(image).__name__)


def _picture_key(image: ImageRef | bytes | None) -> str:
    if image is None:
        return ""
    return f"file:{image.path}" if isinstance(image, ImageRef) else f"bytes:{digest_bytes(image)}"


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
