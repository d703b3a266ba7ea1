"""The network as the original runs it, on the weights of our modules: what is compared with, no part of the package.

Written from the facts about the public training and inference code: rows stay in packed order and every projection,
norm and MLP gathers the rows of its kind and scatters the results; training repeats key and value heads and uses one
dense additive mask per sample; inference allocates keys and values anew in every layer, copies the whole prefix into
them, and runs the guidance passes one after the other, three of them for text-to-image.

Shape letters: L packed tokens, D width, H heads, K key-value heads, E head width, N latent tokens, P numbers of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bettersynth.models.bagel.context import Context, latent_ids
from bettersynth.models.bagel.draw import DrawSettings
from bettersynth.models.bagel.model import BagelModel, JointLoss
from bettersynth.models.family import Batch
from bettersynth.models.layers.masks import Visibility
from bettersynth.models.layers.mot import GEN, MotLayer, RMSNorm
from bettersynth.models.layers.positions import rotary_angles

Attention = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Cache = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Kinds:
    """Packed indexes of the understanding and of the generation rows."""

    und: torch.Tensor
    gen: torch.Tensor


def scattered(x: torch.Tensor, kinds: Kinds, first: Callable, second: Callable) -> torch.Tensor:  # type: ignore[type-arg]
    """Each kind of rows gathered, through its own weights, and scattered into a new tensor."""
    und, gen = first(x[kinds.und]), second(x[kinds.gen])
    result = x.new_zeros(len(x), *und.shape[1:])
    result[kinds.und] = und
    result[kinds.gen] = gen
    return result


def _pair(owner: torch.nn.Module, name: str, kinds: Kinds, x: torch.Tensor) -> torch.Tensor:
    return scattered(x, kinds, _part(owner, name), _part(owner, name + GEN))


def _part(owner: torch.nn.Module, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    module = owner.get_submodule(name)
    return functools.partial(_norm, module) if isinstance(module, RMSNorm) else module


def _norm(module: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """Root mean square norm, operation by operation."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + module.eps)
    return module.weight * wide.to(x.dtype)


def _angles(positions_L: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(L, 1, E) cosines and sines."""
    cos, sin = rotary_angles(positions_L, head_dim, theta)
    return cos.unsqueeze(1), torch.cat([sin[:, head_dim // 2 :]] * 2, dim=-1).unsqueeze(1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Half-split rotation, written out."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def layer_forward(
    layer: MotLayer, x_LD: torch.Tensor, kinds: Kinds, angles: tuple[torch.Tensor, torch.Tensor], attend: Attention
) -> torch.Tensor:
    """One layer over rows of both kinds."""
    attention, width = layer.self_attn, layer.self_attn.sizes.head_dim
    normed = _pair(layer, "input_layernorm", kinds, x_LD)
    q, k, v = (_pair(attention, f"{name}_proj", kinds, normed).unflatten(-1, (-1, width)) for name in "qkv")
    q, k = _pair(attention, "q_norm", kinds, q), _pair(attention, "k_norm", kinds, k)
    q, k = (rotate(part, *angles) for part in (q, k))
    x_LD = x_LD + _pair(attention, "o_proj", kinds, attend(layer.index, q, k, v).flatten(1))
    return x_LD + scattered(x_LD, kinds, _mlp(layer, ""), _mlp(layer, GEN))


def _mlp(layer: MotLayer, suffix: str) -> Callable[[torch.Tensor], torch.Tensor]:
    norm, mlp = _part(layer, "post_attention_layernorm" + suffix), _part(layer, "mlp" + suffix)
    return lambda x: mlp(norm(x))


def und_layer_forward(
    layer: MotLayer, x_LD: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], attend: Attention
) -> torch.Tensor:
    """One layer over understanding rows alone, as in decoding."""
    attention, width = layer.self_attn, layer.self_attn.sizes.head_dim
    normed = _part(layer, "input_layernorm")(x_LD)
    q, k, v = (_part(attention, f"{name}_proj")(normed).view(len(x_LD), -1, width) for name in "qkv")
    q, k = _part(attention, "q_norm")(q), _part(attention, "k_norm")(k)
    q, k = (rotate(part, *angles) for part in (q, k))
    x_LD = x_LD + _part(attention, "o_proj")(attend(layer.index, q, k, v).flatten(1))
    return x_LD + _mlp(layer, "")(x_LD)


# -- training ---------------------------------------------------------------------------------------------------------


class MaskedAttention:
    """Each sample on its own under a dense additive mask, key and value heads repeated for all heads."""

    def __init__(self, batch: Batch, groups: int) -> None:
        sees = Visibility.build(
            *(batch[name].tolist() for name in ("sample_lens", "split_lens", "attn_modes")), torch.device("cpu")
        )
        self.lens, self.groups = list(sees.sample_lens), groups
        zero = torch.zeros(())
        self.masks = [torch.where(mask, zero, float("-inf")) for mask in sees.dense_per_sample()]

    def __call__(self, _: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = (x[:, :, None].repeat(1, 1, self.groups, 1).flatten(1, 2) for x in (k, v))
        mixed = []
        for q_part, k_part, v_part, mask in zip(
            q.split(self.lens), k.split(self.lens), v.split(self.lens), self.masks, strict=True
        ):
            heads = (x.permute(1, 0, 2).unsqueeze(0) for x in (q_part, k_part, v_part))
            mixed.append(F.scaled_dot_product_attention(*heads, attn_mask=mask[None, None])[0].permute(1, 0, 2))
        return torch.cat(mixed)


def embed(model: BagelModel, batch: Batch, noised: dict[str, torch.Tensor], recomputes: bool) -> torch.Tensor:
    """(L, D) every kind of token scattered into a tensor of zeros; one time embedding per latent token."""
    text = model.embed_text(batch["packed_text_ids"])
    x = text.new_zeros(len(batch["packed_position_ids"]), text.shape[1])
    x[batch["packed_text_indexes"]] = text
    if len(batch["packed_vit_token_indexes"]):
        x[batch["packed_vit_token_indexes"]] = _vision(model, batch, recomputes)
    if noised:
        latents = model.vae2llm(noised["x"]) + model.time_embedder(noised["times"])
        x[batch["packed_vae_token_indexes"]] = latents + model.latent_pos_embed(batch["packed_latent_position_ids"])
    return x


def _vision(model: BagelModel, batch: Batch, recomputes: bool) -> torch.Tensor:
    """(N, D) pictures one after the other through attention, each layer recomputed in the backward pass."""
    vision, ids = model.vit_model["vision_model"], batch["packed_vit_position_ids"]
    parts = vision.embeddings
    x = parts.patch_embedding(batch["packed_vit_tokens"]) + parts.position_embedding(ids)
    groups = [(1, length) for length in batch["vit_token_seqlens"].tolist()]
    for layer in vision.encoder["layers"]:
        x = checkpoint(layer, x, groups, use_reentrant=False) if recomputes else layer(x, groups)
    x = vision.post_layernorm(x)
    x = checkpoint(model.connector, x, use_reentrant=False) if recomputes else model.connector(x)
    return x + model.vit_pos_embed(ids)


def losses(model: BagelModel, batch: Batch, *, recomputes: bool = True) -> JointLoss:
    """Both losses of a packed batch; ``recomputes`` as the original always does."""
    noised = model.add_noise(batch)
    x = embed(model, batch, noised, recomputes)
    und = torch.cat([batch["packed_text_indexes"], batch["packed_vit_token_indexes"]])
    kinds = Kinds(und, batch["packed_vae_token_indexes"])
    sizes = model.decoder.sizes
    angles = _angles(batch["packed_position_ids"], sizes.head_dim, sizes.rope_theta)
    attend = MaskedAttention(batch, sizes.num_heads // sizes.num_kv_heads)
    for layer in model.decoder.layers:
        if recomputes:
            x = checkpoint(layer_forward, layer, x, kinds, angles, attend, use_reentrant=False)
        else:
            x = layer_forward(layer, x, kinds, angles, attend)
    x = _pair(model.decoder, "norm", kinds, x)
    logits = model.language_model.lm_head(x[batch["ce_loss_indexes"]])
    ce = F.cross_entropy(logits, batch["packed_label_ids"], reduction="none")
    mse = x.new_zeros(0, model.config.latent_dim)
    if noised and len(batch["mse_loss_indexes"]):
        velocity = model.llm2vae(x[batch["mse_loss_indexes"]])
        mse = (velocity - noised["target"][noised["times"] > 0]) ** 2
    return JointLoss(ce, batch["ce_loss_weights"], mse)


# -- inference --------------------------------------------------------------------------------------------------------


def cache_of(context: Context) -> Cache:
    """A context's keys and values per layer, as tensors of their own."""
    return [
        (k[: context.length].clone(), v[: context.length].clone())
        for k, v in zip(context.keys, context.values, strict=True)
    ]


class CopyingAttention:
    """Full attention over a prefix and the rows themselves: both copied together in every layer.

    ``kept`` collects the joined keys and values, which are the next cache if the rows are to stay.
    """

    def __init__(self, cache: Cache, rows: int, past: int) -> None:
        self.cache, self.kept = cache, Cache()
        self.past, self.own = torch.arange(past), torch.arange(past, past + rows)

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        merged = []
        for side, new in enumerate((k, v)):
            joined = new.new_zeros(len(self.past) + len(self.own), *new.shape[1:])
            joined[self.own] = new
            if len(self.past):
                joined[self.past] = self.cache[layer][side]
            merged.append(joined)
        self.kept.append((merged[0], merged[1]))
        heads = (x.transpose(0, 1).unsqueeze(0) for x in (q, *merged))
        return F.scaled_dot_product_attention(*heads, enable_gqa=q.shape[1] != k.shape[1])[0].transpose(0, 1)


@torch.no_grad()
def draw(
    model: BagelModel, contexts: Sequence[Context], size: tuple[int, int], noise: torch.Tensor, settings: DrawSettings
) -> torch.Tensor:
    """(N, P) latents of one picture: three passes a step (``contexts``: all, without text, without pictures).

    Where the third equals the first, as in text-to-image, it is computed nevertheless. Global renorm only.
    """
    caches = [cache_of(context) for context in contexts]
    rows, cols = size
    places, special, dim = latent_ids(model, rows, cols), model.config.special, len(noise)
    kinds = Kinds(torch.tensor([0, dim + 1]), torch.arange(1, dim + 1))
    x, times = noise.float(), settings.times()
    for time, following in pairwise(times):
        stamps = torch.tensor([time] * dim)
        if len(stamps.unique()) != 1:
            raise ValueError("one time per step")
        embeds = model.vae2llm(x) + model.time_embedder(stamps) + model.latent_pos_embed(places)
        markers = model.embed_text(torch.tensor([special.image_start, special.image_end]))
        sequence = markers.new_zeros(dim + 2, markers.shape[1])
        sequence[kinds.und] = markers
        sequence[kinds.gen] = embeds
        is_guided = settings.is_guided(time)
        passes = [
            _velocity(model, sequence, context, cache, kinds)
            for context, cache in list(zip(contexts, caches, strict=True))[: 3 if is_guided else 1]
        ]
        v = passes[0]
        if is_guided:
            guided = passes[1] + settings.cfg_text_scale * (v - passes[1])
            if settings.cfg_img_scale > 1:
                guided = passes[2] + settings.cfg_img_scale * (guided - passes[2])
            v = guided * (v.norm() / (guided.norm() + 1e-8)).clamp(min=settings.cfg_renorm_min, max=1.0)
        x = x - v * (time - following)
    return x


def _velocity(
    model: BagelModel, sequence_LD: torch.Tensor, context: Context, cache: Cache, kinds: Kinds
) -> torch.Tensor:
    sizes = model.decoder.sizes
    positions = torch.full((len(sequence_LD),), context.next_rope)
    angles = _angles(positions, sizes.head_dim, sizes.rope_theta)
    attend, x = CopyingAttention(cache, len(sequence_LD), context.length), sequence_LD
    for layer in model.decoder.layers:
        x = layer_forward(layer, x, kinds, angles, attend)
    x = _pair(model.decoder, "norm", kinds, x)
    return model.llm2vae(x)[kinds.gen]


@torch.no_grad()
def decode(model: BagelModel, context: Context, max_new_tokens: int, end_id: int | None = None) -> list[int]:
    """Greedy continuation of one context, its cache joined anew for every token."""
    special, sizes = model.config.special, model.decoder.sizes
    end = special.eos if end_id is None else end_id
    cache, length, rope = cache_of(context), context.length, context.next_rope
    token, found = special.bos, list[int]()
    for _ in range(max_new_tokens):
        x = model.embed_text(torch.tensor([token]))
        angles = _angles(torch.tensor([rope]), sizes.head_dim, sizes.rope_theta)
        attend = CopyingAttention(cache, 1, length)
        for layer in model.decoder.layers:
            x = und_layer_forward(layer, x, angles, attend)
        cache, length, rope = attend.kept, length + 1, rope + 1
        logits = model.language_model.lm_head(_norm(model.decoder.norm, x))
        token = int(logits.argmax(-1))
        if token == end:
            break
        found.append(token)
    return found
