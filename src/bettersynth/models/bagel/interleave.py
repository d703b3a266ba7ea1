"""Texts and pictures in, a text or a picture out: the three contexts of guidance and the order of everything.

| input | gen | without text (u) | without picture (m) |
| --- | --- | --- | --- |
| text | read | becomes gen as it was before | read |
| picture | read as latents and as ViT tokens | becomes gen as it is after | unchanged |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from bettersynth.models.bagel.context import Context, read_text, read_vae_image, read_vit_image
from bettersynth.models.bagel.draw import Drawing, DrawSettings, decode, draw, start_noise
from bettersynth.models.bagel.generate import Sampling, generate_text
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.resize import VAE_RULE, VIT_RULE, ResizeRule, on_white, to_bytes, to_pixels

DEFAULT_SETTINGS = DrawSettings()

Segment = Sequence[int] | Image.Image
"""A text as ids without markers, or a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        segments: texts and pictures in order.
        wants_text: answer with a text instead of a picture.
        think_ids: system prompt that asks to think first; None does not think.
        image_hw: (height, width) of the picture in pixels; by default that of the last input picture.
        max_new_tokens: longest answer or thought.
        temperature: of text; 0 is greedy.
        seed: of the start noise and of drawn text.
        noise: the start noise itself, for tests.
    """

    segments: Sequence[Segment]
    wants_text: bool = False
    think_ids: Sequence[int] | None = None
    image_hw: tuple[int, int] | None = None
    max_new_tokens: int = 500
    temperature: float = 0.0
    seed: int = 0
    noise: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A text (or thought) as ids, and the picture with its latent tokens; either may be absent."""

    ids: list[int] | None = None
    image: np.ndarray | None = None
    latent: torch.Tensor | None = None


@dataclass
class Contexts:
    """The three contexts of one request and the size of the picture to come."""

    gen: Context
    cfg_text: Context
    cfg_img: Context
    image_hw: tuple[int, int]

    @classmethod
    def empty(cls, image_hw: tuple[int, int] = (1024, 1024)) -> Contexts:
        """Nothing read yet."""
        return cls(Context(), Context(), Context(), image_hw)


@dataclass(frozen=True)
class Interleaver:
    """Answers requests with one model.

    Attributes:
        model: in evaluation mode, with its autoencoder.
        vae_rule, vit_rule: how input pictures are resized: by the first, and the result again for the ViT.
        settings: of drawing.
    """

    model: BagelModel
    vae_rule: ResizeRule = VAE_RULE
    vit_rule: ResizeRule = VIT_RULE
    settings: DrawSettings = DEFAULT_SETTINGS

    def read(self, contexts: Contexts, segment: Segment, *, is_understanding: bool = False) -> None:
        """Add one input to the contexts; for understanding only a picture's ViT tokens are read."""
        if isinstance(segment, Image.Image):
            self._read_image(contexts, segment, is_understanding)
            return
        if is_understanding:
            read_text(self.model, [contexts.gen], [segment])
            return
        contexts.cfg_text = contexts.gen.fork()
        self._read_both(contexts, segment)

    def read_answer(self, contexts: Contexts, ids: Sequence[int]) -> None:
        """Add a text that the model itself wrote. The context without text still lacks the prompt as well."""
        self._read_both(contexts, ids)

    def _read_both(self, contexts: Contexts, ids: Sequence[int]) -> None:
        """A text for gen and for the context without pictures; once if they are the same so far."""
        if contexts.cfg_img.history == contexts.gen.history:
            read_text(self.model, [contexts.gen], [ids])
            contexts.cfg_img = contexts.gen.fork()
        else:
            read_text(self.model, [contexts.gen, contexts.cfg_img], [ids, ids])

    def _read_image(self, contexts: Contexts, image: Image.Image, is_understanding: bool) -> None:
        resized = self.vae_rule.apply(on_white(image))
        if not is_understanding:
            read_vae_image(self.model, contexts.gen, to_pixels(self.vae_rule.apply(resized)))
        read_vit_image(self.model, contexts.gen, to_pixels(self.vit_rule.apply(resized)))
        contexts.cfg_text = contexts.gen.fork()
        contexts.image_hw = (resized.height, resized.width)

    def start(self, request: Request) -> Contexts:
        """The contexts of a request after all of its inputs."""
        contexts = Contexts.empty()
        if request.think_ids is not None:
            self._read_both(contexts, request.think_ids)
        for segment in request.segments:
            self.read(contexts, segment, is_understanding=request.wants_text)
        if request.image_hw is not None:
            contexts.image_hw = request.image_hw
        return contexts

    def answer(self, requests: Sequence[Request], settings: DrawSettings | None = None) -> list[Reply]:
        """One reply per request; texts are decoded together and pictures are drawn together."""
        states = [self.start(request) for request in requests]
        replies = [Reply() for _ in requests]
        speaking = [i for i, request in enumerate(requests) if request.wants_text or request.think_ids is not None]
        for i, ids in zip(speaking, self._texts([requests[i] for i in speaking], states, speaking), strict=True):
            replies[i] = Reply(ids)
            if not requests[i].wants_text:
                read_text(self.model, [states[i].gen], [ids])
        drawing = [i for i, request in enumerate(requests) if not request.wants_text]
        if drawing:
            pictures = [self._drawing(requests[i], states[i]) for i in drawing]
            latents = draw(self.model, pictures, settings or self.settings)
            for i, picture, latent in zip(drawing, pictures, latents, strict=True):
                pixels = to_bytes(decode(self.model, latent, picture.rows, picture.cols))
                replies[i] = replace(replies[i], image=pixels, latent=latent)
        return replies

    def _texts(self, requests: Sequence[Request], states: Sequence[Contexts], which: Sequence[int]) -> list[list[int]]:
        """Decode together what shares a length and a temperature."""
        answers: dict[int, list[int]] = {}
        groups: dict[tuple[int, float], list[tuple[int, Request]]] = {}
        for i, request in zip(which, requests, strict=True):
            groups.setdefault((request.max_new_tokens, request.temperature), []).append((i, request))
        for (max_new_tokens, temperature), members in groups.items():
            found = generate_text(
                self.model,
                [states[i].gen for i, _ in members],
                max_new_tokens=max_new_tokens,
                sampling=Sampling(temperature),
                generators=[torch.Generator().manual_seed(request.seed) for _, request in members],
            )
            answers |= {i: answer.ids for (i, _), answer in zip(members, found, strict=True)}
        return [answers[i] for i in which]

    def _drawing(self, request: Request, contexts: Contexts) -> Drawing:
        stride = self.model.config.latent_stride_px
        rows, cols = (max(1, side // stride) for side in contexts.image_hw)
        noise = start_noise(self.model, rows, cols, request.seed) if request.noise is None else request.noise
        return Drawing(rows, cols, noise, contexts.gen, contexts.cfg_text, contexts.cfg_img)
