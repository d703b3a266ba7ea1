"""A decoder whose layers hold two sets of weights: one for tokens to be understood, one for latents to be generated.

Rows are kept in routed order all the way: first every understanding row, then every generation row, so that each set
of weights reads one slice. Only attention, in which all rows meet, sees them in packed order.

Shape letters: U understanding rows, G generation rows, L = U + G, D width, H heads, K key-value heads, E head width.
Source: Liang et al. 2024 (Mixture-of-Transformers); parameter names of the public BAGEL weights.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bettersynth.models.layers.positions import rotary_angles, rotate

GEN = "_moe_gen"
"""Suffix of the generation weights."""

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, q (L, H, E), k (L, K, E), v (L, K, E)) in packed order -> (L, H, E)."""


class Rows(NamedTuple):
    """The two slices of a routed sequence: (U, D) and (G, D)."""

    und: torch.Tensor
    gen: torch.Tensor


@dataclass(frozen=True)
class Routing:
    """Which packed rows use which weights, and their rotary angles.

    Attributes:
        num_und: understanding rows.
        packed_to_routed: (L,) packed index of each routed row; None when both orders agree.
        routed_to_packed: its inverse.
        cos, sin: (L, 1, E) rotary angles in packed order.
    """

    num_und: int
    packed_to_routed: torch.Tensor | None
    routed_to_packed: torch.Tensor | None
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def build(
        cls, und_index: torch.Tensor, gen_index: torch.Tensor, positions: torch.Tensor, *, head_dim: int, theta: float
    ) -> Routing:
        """From the packed indexes of both kinds of rows and the rotary ids (L,) of the packed sequence."""
        cos, sin = (x.unsqueeze(1) for x in rotary_angles(positions, head_dim, theta))
        if not len(gen_index) or not len(und_index):
            return cls(len(und_index), None, None, cos, sin)
        order = torch.cat([und_index, gen_index])
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return cls(len(und_index), order, inverse, cos, sin)

    @classmethod
    def understanding(cls, positions: torch.Tensor, *, head_dim: int, theta: float) -> Routing:
        """Of a sequence of understanding rows alone."""
        cos, sin = (x.unsqueeze(1) for x in rotary_angles(positions, head_dim, theta))
        return cls(len(positions), None, None, cos, sin)

    def to_packed(self, x: torch.Tensor) -> torch.Tensor:
        """Rows in routed order -> packed order."""
        return x if self.routed_to_packed is None else x.index_select(0, self.routed_to_packed)

    def split(self, x_LD: torch.Tensor) -> Rows:
        """Packed rows -> both slices."""
        routed = x_LD if self.packed_to_routed is None else x_LD.index_select(0, self.packed_to_routed)
        return Rows(routed[: self.num_und], routed[self.num_und :])

    def join(self, rows: Rows) -> torch.Tensor:
        """Both slices -> packed rows."""
        return self.to_packed(cat_rows(rows.und, rows.gen))


def cat_rows(und: torch.Tensor, gen: torch.Tensor) -> torch.Tensor:
    """Concatenation without a copy when one side is empty."""
    if not len(gen):
        return und
    return torch.cat([und, gen]) if len(und) else gen


class RMSNorm(nn.Module):
    """Root mean square norm, computed in float32 and cast back before the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises the last dimension."""
        if x.dtype == self.weight.dtype == torch.float32:  # nothing is cast: one operation does the same
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape in and out."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass(frozen=True, slots=True)
class MotSizes:
    """Sizes of a decoder."""

    hidden: int
    mlp: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    rms_eps: float
    rope_theta: float

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.num_heads


def part(owner: nn.Module, name: str) -> nn.Module:
    """A direct child by name. Decoding a token looks up dozens: ``get_submodule`` takes several times as long."""
    child = owner._modules[name]
    assert child is not None
    return child


class MotAttention(nn.Module):
    """Projections and per-head norms of both sets; one softmax over all tokens."""

    def __init__(self, sizes: MotSizes) -> None:
        super().__init__()
        self.sizes = sizes
        wide, narrow = sizes.num_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
        for suffix in ("", GEN):
            self.add_module("q_proj" + suffix, nn.Linear(sizes.hidden, wide))
            self.add_module("k_proj" + suffix, nn.Linear(sizes.hidden, narrow))
            self.add_module("v_proj" + suffix, nn.Linear(sizes.hidden, narrow))
            self.add_module("o_proj" + suffix, nn.Linear(wide, sizes.hidden, bias=False))
            self.add_module("q_norm" + suffix, RMSNorm(sizes.head_dim, sizes.rms_eps))
            self.add_module("k_norm" + suffix, RMSNorm(sizes.head_dim, sizes.rms_eps))

    def qkv(self, x: torch.Tensor, suffix: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, D) -> normed q (N, H, E), normed k and plain v (N, K, E), with one set of weights."""
        shape = (len(x), -1, self.sizes.head_dim)
        q, k, v = (part(self, name + "_proj" + suffix)(x).view(shape) for name in "qkv")
        return part(self, "q_norm" + suffix)(q), part(self, "k_norm" + suffix)(k), v


class MotLayer(nn.Module):
    """x += o(attention(norm(x))); x += mlp(norm(x)), each row with its own set of weights."""

    def __init__(self, sizes: MotSizes, index: int) -> None:
        super().__init__()
        self.index = index
        self.self_attn = MotAttention(sizes)
        for suffix in ("", GEN):
            self.add_module("mlp" + suffix, SwiGLU(sizes.hidden, sizes.mlp))
            self.add_module("input_layernorm" + suffix, RMSNorm(sizes.hidden, sizes.rms_eps))
            self.add_module("post_attention_layernorm" + suffix, RMSNorm(sizes.hidden, sizes.rms_eps))

    def forward(self, rows: Rows, routing: Routing, attend: Attend, is_und_frozen: bool = False) -> Rows:
        """Both slices through the layer; with ``is_und_frozen`` no gradient passes an understanding row."""
        mixed = self._attention(rows, routing, attend, is_und_frozen)
        und, gen = rows
        if len(und):
            with _learning(not is_und_frozen):
                und = self._finish(und, mixed[: routing.num_und], "")
        return Rows(und, self._finish(gen, mixed[routing.num_und :], GEN) if len(gen) else gen)

    def _attention(self, rows: Rows, routing: Routing, attend: Attend, is_und_frozen: bool) -> torch.Tensor:
        parts = []
        for x, suffix in ((rows.und, ""), (rows.gen, GEN)):
            if len(x):
                with _learning(bool(suffix) or not is_und_frozen):
                    parts.append(self.self_attn.qkv(part(self, "input_layernorm" + suffix)(x), suffix))
        q, k, v = parts[0]
        if len(parts) > 1:
            q, k, v = (routing.to_packed(torch.cat(pair)) for pair in zip(*parts, strict=True))
        q, k = rotate(q, routing.cos, routing.sin), rotate(k, routing.cos, routing.sin)
        mixed = attend(self.index, q, k, v).flatten(1)
        return mixed if routing.packed_to_routed is None else mixed.index_select(0, routing.packed_to_routed)

    def _finish(self, x: torch.Tensor, heads: torch.Tensor, suffix: str) -> torch.Tensor:
        x = x + part(self.self_attn, "o_proj" + suffix)(heads)
        return x + part(self, "mlp" + suffix)(part(self, "post_attention_layernorm" + suffix)(x))


def _learning(is_learning: bool) -> AbstractContextManager[Any]:
    """Gradients as they are, or off."""
    return nullcontext() if is_learning else torch.no_grad()


class MotDecoder(nn.Module):
    """Embedding, layers and the two final norms.

    Args:
        sizes: of the layers.
        vocab_size: rows of the embedding.
    """

    def __init__(self, sizes: MotSizes, vocab_size: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(vocab_size, sizes.hidden)
        self.layers = nn.ModuleList(MotLayer(sizes, index) for index in range(sizes.num_layers))
        self.norm = RMSNorm(sizes.hidden, sizes.rms_eps)
        self.norm_moe_gen = RMSNorm(sizes.hidden, sizes.rms_eps)
        self.is_checkpointing: bool | int = False
        """Whether layers are recomputed in the backward pass; a number means the first so many."""

    def routing(self, und_index: torch.Tensor, gen_index: torch.Tensor, positions: torch.Tensor) -> Routing:
        """See :meth:`Routing.build`."""
        sizes = self.sizes
        return Routing.build(und_index, gen_index, positions, head_dim=sizes.head_dim, theta=sizes.rope_theta)

    def und_routing(self, positions: torch.Tensor) -> Routing:
        """See :meth:`Routing.understanding`."""
        return Routing.understanding(positions, head_dim=self.sizes.head_dim, theta=self.sizes.rope_theta)

    def run_layers(self, rows: Rows, routing: Routing, attend: Attend, *, is_und_frozen: bool = False) -> Rows:
        """Both slices through all layers, before the final norms."""
        for layer in self.layers:
            is_chosen = self.is_checkpointing is True or layer.index < self.is_checkpointing
            if is_chosen and torch.is_grad_enabled():
                rows = Rows(*checkpoint(layer, rows, routing, attend, is_und_frozen, use_reentrant=False))
            else:
                rows = layer(rows, routing, attend, is_und_frozen)
        return rows

    def final_norms(self, rows: Rows, *, is_und_frozen: bool = False) -> Rows:
        """The final norm of each slice."""
        und, gen = rows
        if len(und):
            with _learning(not is_und_frozen):
                und = self.norm(und)
        return Rows(und, self.norm_moe_gen(gen) if len(gen) else gen)

    def init_generation(self) -> None:
        """Copy every understanding weight into its generation twin, the start from a dense language model."""
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, parameter in own.items():
                if GEN in name:
                    parameter.copy_(own[name.replace(GEN, "")])
