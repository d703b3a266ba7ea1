"""What the model has read so far: keys and values of every layer, and the next rotary id.

The cache is never copied while decoding or drawing: rows that are only looked at are written behind its end and
forgotten. Several contexts go through the network in one forward.

Shape letters: L rows of one forward, H heads, K key-value heads, E head width, D language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.packing import patchify
from bettersynth.models.layers.attention import sdpa
from bettersynth.models.layers.mot import Routing, Rows
from bettersynth.models.layers.positions import patch_ids

_SPARE_ROWS = 128


@dataclass
class Context:
    """One sequence.

    Attributes:
        length: rows that count.
        next_rope: rotary id of what comes next.
        keys, values: per layer (capacity, K, E); keys after norm and rotation.
        history: what was read, so that equal contexts can be recognised.
    """

    length: int = 0
    next_rope: int = 0
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    history: tuple[object, ...] = ()

    def fork(self) -> Context:
        """An independent copy of what counts."""
        keys, values = ([x[: self.length].clone() for x in side] for side in (self.keys, self.values))
        return Context(self.length, self.next_rope, keys, values, self.history)

    def write(self, layer: int, k_LKE: torch.Tensor, v_LKE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put rows behind the end and return views of all rows; the end moves only with :meth:`advance`."""
        end = self.length + len(k_LKE)
        if layer == len(self.keys):
            shape = (end + _SPARE_ROWS, *k_LKE.shape[1:])
            self.keys.append(k_LKE.new_empty(shape))
            self.values.append(v_LKE.new_empty(shape))
        for side, new in ((self.keys, k_LKE), (self.values, v_LKE)):
            if end > len(side[layer]):
                grown = new.new_empty((max(end + _SPARE_ROWS, 2 * len(side[layer])), *new.shape[1:]))
                grown[: self.length] = side[layer][: self.length]
                side[layer] = grown
            side[layer][self.length : end] = new
        return self.keys[layer][:end], self.values[layer][:end]

    def advance(self, rows: int, ropes: int, history: object) -> None:
        """Make the last written rows count."""
        self.length += rows
        self.next_rope += ropes
        self.history = (*self.history, history)


@dataclass(frozen=True)
class Block:
    """Rows of one context in a forward: (L, D) embeddings, rotary ids, whether causal, and whether a latent image."""

    context: Context
    embeds: torch.Tensor
    ropes: torch.Tensor
    is_causal: bool = False
    is_latent: bool = False

    def __len__(self) -> int:
        return len(self.embeds)


class _CachedAttention:
    """Each block over its context's cache and itself."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = blocks
        self.lens = [len(block) for block in blocks]
        self.masks = [self._mask(block) for block in blocks]

    @staticmethod
    def _mask(block: Block) -> torch.Tensor | None:
        if not block.is_causal or len(block) == 1:
            return None
        past, rows = block.context.length, len(block)
        return torch.ones(rows, past + rows, dtype=torch.bool, device=block.embeds.device).tril(past)

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if len(self.blocks) == 1:
            return sdpa(q, *self.blocks[0].context.write(layer, k, v), self.masks[0])
        mixed = []
        pieces = zip(self.blocks, self.masks, *(x.split(self.lens) for x in (q, k, v)), strict=True)
        for block, mask, q_part, k_part, v_part in pieces:
            keys, values = block.context.write(layer, k_part, v_part)
            mixed.append(sdpa(q_part, keys, values, mask))
        return torch.cat(mixed)


def route(model: BagelModel, blocks: Sequence[Block]) -> Routing:
    """The routing of a forward over these blocks."""
    ropes = blocks[0].ropes if len(blocks) == 1 else torch.cat([block.ropes for block in blocks])
    if not any(block.is_latent for block in blocks):
        return model.decoder.und_routing(ropes)
    is_gen = []
    for block in blocks:
        flags = torch.zeros(len(block), dtype=torch.bool)
        flags[1:-1] = block.is_latent  # the markers around latents are text
        is_gen.append(flags)
    flags = torch.cat(is_gen)
    und, gen = (~flags).nonzero().flatten(), flags.nonzero().flatten()
    device = model.device
    return model.decoder.routing(und.to(device), gen.to(device), ropes)


def forward(model: BagelModel, blocks: Sequence[Block], routing: Routing | None = None) -> tuple[Rows, Routing]:
    """All blocks through the layers in one pass -> rows before the final norms. No context advances."""
    routing = routing or route(model, blocks)
    rows = routing.split(blocks[0].embeds if len(blocks) == 1 else torch.cat([block.embeds for block in blocks]))
    return model.decoder.run_layers(rows, routing, _CachedAttention(blocks)), routing


def text_block(model: BagelModel, context: Context, ids: Sequence[int]) -> Block:
    """Tokens at the next rotary ids, each seeing the earlier ones."""
    device = model.device
    ropes = torch.arange(context.next_rope, context.next_rope + len(ids), device=device)
    return Block(context, model.embed_text(torch.tensor(ids, device=device)), ropes, is_causal=True)


def token_blocks(model: BagelModel, contexts: Sequence[Context], ids: Sequence[int]) -> list[Block]:
    """One token for each context, all embedded together."""
    device = model.device
    ropes = torch.tensor([context.next_rope for context in contexts], device=device)
    embeds = model.embed_text(torch.tensor(ids, device=device))
    return [Block(context, embeds[i : i + 1], ropes[i : i + 1], is_causal=True) for i, context in enumerate(contexts)]


def image_block(model: BagelModel, context: Context, tokens: torch.Tensor, *, is_latent: bool) -> Block:
    """Start marker, (N, D) tokens, end marker: all at one rotary id, all seeing each other."""
    special = model.config.special
    markers = model.embed_text(torch.tensor([special.image_start, special.image_end], device=model.device))
    embeds = torch.cat([markers[:1], tokens.to(markers.dtype), markers[1:]])
    ropes = torch.full((len(embeds),), context.next_rope, device=model.device)
    return Block(context, embeds, ropes, is_latent=is_latent)


@torch.no_grad()
def read_text(model: BagelModel, contexts: Sequence[Context], texts: Sequence[Sequence[int]]) -> None:
    """Add one text, as ids without markers, to each context; all in one forward."""
    special = model.config.special
    wrapped = [(special.bos, *ids, special.eos) for ids in texts]
    blocks = [text_block(model, context, ids) for context, ids in zip(contexts, wrapped, strict=True)]
    forward(model, blocks)
    for context, ids in zip(contexts, wrapped, strict=True):
        context.advance(len(ids), len(ids), ids)


def _read_image(model: BagelModel, context: Context, tokens: torch.Tensor, *, is_latent: bool) -> None:
    block = image_block(model, context, tokens, is_latent=is_latent)
    forward(model, [block])
    context.advance(len(block), 1, object())


@torch.no_grad()
def read_vit_image(model: BagelModel, context: Context, pixels_3HW: torch.Tensor) -> None:
    """Add a picture to be understood: (3, H, W) in [-1, 1], sides multiples of the patch."""
    config = model.config
    patch = config.vit.patch_size
    rows, cols = pixels_3HW.shape[1] // patch, pixels_3HW.shape[2] // patch
    side = config.vit_max_num_patch_per_side
    ids = patch_ids(rows, cols, side, interpolate=config.interpolate_pos).to(model.device)
    patches = patchify(pixels_3HW.to(model.device), patch)
    _read_image(model, context, model.embed_vit(patches, ids, [len(ids)]), is_latent=False)


@torch.no_grad()
def read_vae_image(model: BagelModel, context: Context, pixels_3HW: torch.Tensor) -> None:
    """Add a picture as clean latents (time 0, mean of the posterior): (3, H, W) in [-1, 1]."""
    latents = model.autoencoder.encode(pixels_3HW.to(model.device)[None])
    rows, cols = (side // model.config.latent_patch_size for side in latents.shape[2:])
    tokens = model.latent_tokens(latents, [(rows, cols)])
    time = torch.zeros(1, device=model.device)
    _read_image(model, context, model.embed_latents(tokens, time, latent_ids(model, rows, cols)), is_latent=True)


def latent_ids(model: BagelModel, rows: int, cols: int) -> torch.Tensor:
    """(rows * cols,) places of latent tokens in their table."""
    config = model.config
    return patch_ids(rows, cols, config.max_latent_size, interpolate=config.interpolate_pos).to(model.device)
