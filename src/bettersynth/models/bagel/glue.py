"""The small parts between the networks: time embedding, connector, position tables. Written from their formulas.

Shape letters: N tokens, D width.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.models.layers.positions import sincos_table

FREQUENCIES = 128
_MAX_PERIOD = 10000.0


class TimeEmbedder(nn.Module):
    """t in [0, 1] -> 128 cosines and 128 sines -> Linear, SiLU, Linear.

    The angle of frequency k is t * exp(-ln(10000) k / 128), with t as it is (not times 1000), cosines first.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, times_N: torch.Tensor) -> torch.Tensor:
        """(N,) -> (N, D)."""
        places = torch.arange(FREQUENCIES, dtype=torch.float32, device=times_N.device)
        angles = times_N.float()[:, None] * torch.exp(-math.log(_MAX_PERIOD) * places / FREQUENCIES)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


class Connector(nn.Module):
    """Vision width to language width: fc2(gelu_tanh(fc1(x)))."""

    def __init__(self, vision: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision, dim)
        self.fc2 = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, vision) -> (N, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class PositionTable(nn.Module):
    """A frozen 2-D sine-cosine table; it is stored, as the original's loader wants to find it."""

    pos_embed: torch.Tensor

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.side, self.dim = side, dim
        self.register_buffer("pos_embed", torch.empty(side * side, dim))

    def fill(self) -> None:
        """Compute the table anew, whatever was stored."""
        old = self.pos_embed
        device = "cpu" if old.is_meta else old.device
        self.pos_embed = sincos_table(self.side, self.dim).to(device, old.dtype)

    def forward(self, ids_N: torch.Tensor) -> torch.Tensor:
        """(N,) -> (N, D)."""
        return self.pos_embed.index_select(0, ids_N)
