"""The FLUX-style autoencoder: pictures to latents of an eighth of their size, and back.

Shape letters: B pictures, C channels, H W positions, Z latent channels.
Source: Rombach et al. 2022 (latent diffusion); parameter names of the public FLUX autoencoder.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.models.bagel.config import VaeConfig


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Norm, swish, 3x3, norm, swish, 3x3, plus the input (through a 1x1 when the channels change)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        if channels_in != channels:
            self.nin_shortcut = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) -> (B, C, H, W)."""
        y = self.conv1(F.silu(self.norm1(x_BCHW)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x_BCHW) if hasattr(self, "nin_shortcut") else x_BCHW)


class AttentionBlock(nn.Module):
    """Single-head attention over all positions, by 1x1 convolutions, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        for name in ("q", "k", "v", "proj_out"):
            self.add_module(name, nn.Conv2d(channels, channels, 1))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Same shape in and out."""
        normed = self.norm(x_BCHW)
        q, k, v = (
            self.get_submodule(name)(normed).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for name in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x_BCHW.shape)
        return x_BCHW + self.get_submodule("proj_out")(mixed)


class Downsample(nn.Module):
    """Half the size: 3x3 with stride 2 after one zero row and column at the bottom and right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: nearest, then 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Level(nn.Module):
    """Residual blocks of one size and, perhaps, the step to the next size."""

    def __init__(self, channels_in: int, channels: int, depth: int, step: str | None) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * depth
        self.block = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(widths))
        self.step = step
        if step is not None:
            self.add_module(step, Downsample(channels) if step == "downsample" else Upsample(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x)
        return x if self.step is None else self.get_submodule(self.step)(x)


class Encoder(nn.Module):
    """Pictures to the moments of their latents: mean, then logarithm of the variance."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in (1, *config.ch_mult)]
        last = len(config.ch_mult) - 1
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            _Level(widths[i], widths[i + 1], config.num_res_blocks, "downsample" if i < last else None)
            for i in range(last + 1)
        )
        self.mid = _Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 2 Z, H/8, W/8)."""
        x = self.conv_in(x_B3HW)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents to pictures; ``up.0`` is the level of full size."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1])
        self.up = nn.ModuleList(
            _Level(widths[min(i + 1, last)], widths[i], config.num_res_blocks + 1, "upsample" if i else None)
            for i in range(last + 1)
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, z_BZHW: torch.Tensor) -> torch.Tensor:
        """(B, Z, H/8, W/8) -> (B, 3, H, W)."""
        x = self.mid(self.conv_in(z_BZHW))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class AutoEncoder(nn.Module):
    """Both halves and the scale of the latents the decoder of the language model works on."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def moments(self, x_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] -> mean and logarithm of the variance, (B, Z, H/8, W/8) each."""
        mean, log_variance = self.encoder(x_B3HW.to(self.encoder.conv_in.weight.dtype)).chunk(2, dim=1)
        return mean, log_variance

    def encode(self, x_B3HW: torch.Tensor, eps: torch.Tensor | None = None) -> torch.Tensor:
        """Scaled latents: of the mean, or of the sample that ``eps`` (standard normal, latent shape) draws."""
        mean, log_variance = self.moments(x_B3HW)
        if eps is not None:
            mean = mean + torch.exp(0.5 * log_variance) * eps.to(mean)
        return self.config.scale_factor * (mean - self.config.shift_factor)

    def decode(self, z_BZHW: torch.Tensor) -> torch.Tensor:
        """Scaled latents -> (B, 3, H, W), about [-1, 1]."""
        z = z_BZHW.to(self.decoder.conv_in.weight.dtype)
        return self.decoder(z / self.config.scale_factor + self.config.shift_factor)
