"""Frozen weights in 4 or 8 bits, for low-rank training and inference, in plain PyTorch: the same bits everywhere.

nf4: blocks of 64 numbers share one float32 scale, each number is one of 16 quantiles of a normal distribution.
int8: every row has one float32 scale, each number is a whole one from -127 to 127.
Source: Dettmers et al. 2023 (QLoRA), section 3 and the table of NF4 values in its appendix; scales are not quantised a
second time here, which costs 0.06 bytes a number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

NF4_VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
FEW_BITS = ("nf4", "int8")
_BLOCK = 64
_INT8_MAX = 127


class FrozenWeight(nn.Module):
    """A matrix in few bits.

    Args:
        weight: (out, in), of any floating type.
        kind: ``nf4`` or ``int8``.
    """

    codes: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, kind: str) -> None:
        super().__init__()
        self.kind, self.shape = kind, weight.shape
        with torch.no_grad():
            codes, scale = (_to_nf4 if kind == "nf4" else _to_int8)(weight.detach().float())
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(out, in) again, as near as the bits allow."""
        return _dense(self.codes, self.scale, self.shape, dtype)

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(..., in) -> (..., out); the dense weight exists during the product only, forward and backward."""
        product: torch.Tensor = _Linear.apply(x, self.codes, self.scale, self.shape)
        return product if bias is None else product + bias.to(product.dtype)


class FewBitLinear(nn.Module):
    """A linear layer for inference whose weight is kept in few bits from the moment it is loaded.

    Args:
        linear: whose sizes it has; its weight may still be without memory.
        kind: ``nf4`` or ``int8``.
    """

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        self.weight, self.bias, self.kind = linear.weight, linear.bias, kind

    def settle(self) -> None:
        """Replace the weight that has just been loaded by its few bits."""
        packed = FrozenWeight(self.weight, self.kind)
        del self.weight
        self.packed = packed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        return self.packed.linear(x, self.bias)


def keep_in_few_bits(module: nn.Module, kind: str) -> int:
    """Prepare all linear layers below a module, before their weights are loaded; returns how many."""
    found = [(owner, name, part) for owner in module.modules() for name, part in owner.named_children()]
    linears = [(owner, name, part) for owner, name, part in found if isinstance(part, nn.Linear)]
    for owner, name, part in linears:
        setattr(owner, name, FewBitLinear(part, kind))
    return len(linears)


class _Linear(torch.autograd.Function):
    """A linear layer that saves its few-bit weight for the backward pass, not the dense one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(codes, scale)
        ctx.shape, ctx.dtype = shape, x.dtype
        is_cast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if is_cast else x.dtype
        return F.linear(x.to(dtype), _dense(codes, scale, shape, dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[override]
        codes, scale = ctx.saved_tensors
        return (grad @ _dense(codes, scale, ctx.shape, grad.dtype)).to(ctx.dtype), None, None, None


def _to_nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two numbers a byte, the first in its high half, and one scale per block; the last block is filled with zeros."""
    flat = weight.reshape(-1)
    blocks = F.pad(flat, (0, -len(flat) % _BLOCK)).view(-1, _BLOCK)
    scale = blocks.abs().amax(1)
    values = torch.tensor(NF4_VALUES, device=weight.device)
    borders = (values[1:] + values[:-1]) / 2
    scaled = blocks / torch.where(scale > 0, scale, torch.ones_like(scale)).unsqueeze(1)
    codes = torch.bucketize(scaled, borders, out_int32=True).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scale


def _to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().amax(1) / _INT8_MAX
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / safe.unsqueeze(1)).round().to(torch.int8), scale


def _dense(codes: torch.Tensor, scale: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    if codes.dtype == torch.int8:
        return (codes.float() * scale.unsqueeze(1)).to(dtype)
    values = torch.tensor(NF4_VALUES, device=codes.device)
    halves = torch.stack([codes >> 4, codes & 15], dim=1)
    blocks = values[halves.view(-1).int()].view(-1, _BLOCK) * scale.unsqueeze(1)
    return blocks.view(-1)[: shape.numel()].view(shape).to(dtype)
