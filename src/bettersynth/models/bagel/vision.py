"""The SigLIP encoder over patches of pictures of any size, several of them packed in one sequence.

Shape letters: N patches of all pictures, C width, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.models.bagel.config import VitConfig


class _Attention(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))

    def forward(self, x_NC: torch.Tensor, groups: Sequence[tuple[int, int]]) -> torch.Tensor:
        q, k, v = (
            self.get_submodule(name)(x_NC).unflatten(-1, (self.num_heads, -1))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed, begin = [], 0
        for count, length in groups:  # neighbours of one size go through attention together
            end = begin + count * length
            heads = (x[begin:end].unflatten(0, (count, length)).transpose(1, 2) for x in (q, k, v))
            mixed.append(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(0, 1))
            begin = end
        return self.get_submodule("out_proj")(torch.cat(mixed).flatten(1))


class _Mlp(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VitLayer(nn.Module):
    """x += attention(norm(x)) inside each picture; x += mlp(norm(x))."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _Mlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_NC: torch.Tensor, groups: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Same shape in and out; ``groups`` are runs of (pictures, patches of each)."""
        x_NC = x_NC + self.self_attn(self.layer_norm1(x_NC), groups)
        return x_NC + self.mlp(self.layer_norm2(x_NC))


class _Embeddings(nn.Module):
    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        # Patches come flattened with the channel last, so a linear layer stands where SigLIP has a convolution.
        self.patch_embedding = nn.Linear(config.num_channels * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Embedding(config.table_side**2, config.hidden_size)


class VitEncoder(nn.Module):
    """Patch embedding, learned positions, layers, final norm. No pooling head."""

    def __init__(self, config: VitConfig, num_layers: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(VitLayer(config) for _ in range(num_layers))
        self.encoder = nn.ModuleDict({"layers": layers})
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, patches: torch.Tensor, position_ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """(N, p * p * 3) patches in [-1, 1] -> (N, C).

        Args:
            patches: of all pictures one after the other, row-major, channel last inside a patch.
            position_ids: (N,) rows of the position table.
            lengths: patches of each picture.
        """
        embeddings = self.embeddings
        x_NC = embeddings.patch_embedding(patches.to(embeddings.patch_embedding.weight.dtype))
        x_NC = x_NC + embeddings.position_embedding(position_ids)
        groups = runs(lengths)
        for layer in self.encoder["layers"]:
            x_NC = layer(x_NC, groups)
        return self.post_layernorm(x_NC)


def runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours of equal length counted together.

    >>> runs([4, 4, 6])
    [(2, 4), (1, 6)]
    """
    found: list[tuple[int, int]] = []
    for length in lengths:
        if found and found[-1][1] == length:
            found[-1] = (found[-1][0] + 1, length)
        else:
            found.append((1, length))
    return found
