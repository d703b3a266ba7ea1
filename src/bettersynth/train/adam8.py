"""AdamW with its two averages in 8 bits each: 2 bytes a parameter instead of 8, in plain PyTorch.

Blocks of 256 numbers share a scale; a number is one of 256 values whose spacing grows with their size, so that small
ones keep their precision. Kept are the mean gradient and the root of the mean square: a root spans half as many
decades, and no parameter that has a gradient gets a root of zero, which would make its step unbounded.
Source: Dettmers et al. 2021 (8-bit optimizers), section 2; the root instead of the square is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

_BLOCK = 256
_SMALLEST = 4096
"""Smaller tensors keep float32 averages: they are norms and biases, and they do not matter for memory."""
_CHUNK = 1 << 24
"""Numbers updated at once: bounds the temporary memory to a few hundred MB."""
_DECADES = 7


def code_values(*, is_signed: bool) -> list[float]:
    """The 256 values a number may have, ascending: twice as many in a decade as in the one below it.

    >>> values = code_values(is_signed=True)
    >>> len(values), values[ZERO_CODE[True]], values[-1]
    (256, 0.0, 1.0)
    """
    values = [0.0, 1.0]
    for decade in range(_DECADES):
        count = 2 ** (decade if is_signed else decade + 1)
        scaled = [(0.1 + 0.9 * (n + 0.5) / count) * 10.0 ** (decade + 1 - _DECADES) for n in range(count)]
        values += scaled + ([-value for value in scaled] if is_signed else [])
    return sorted(values)


ZERO_CODE = {True: 127, False: 0}
"""The code of zero among signed and unsigned values."""


class Codes:
    """One of the two kinds of numbers: mean gradients (signed) or roots of mean squares."""

    def __init__(self, *, is_signed: bool, device: torch.device) -> None:
        self.values = torch.tensor(code_values(is_signed=is_signed), device=device)
        self._borders = (self.values[1:] + self.values[:-1]) / 2
        self._is_signed = is_signed

    def read(self, codes: torch.Tensor, scale: torch.Tensor, size: int) -> torch.Tensor:
        """Codes and the scales of their blocks -> ``size`` float32 numbers."""
        numbers = self.values[codes.int()]
        return (F.pad(numbers, (0, -size % _BLOCK)).view(-1, _BLOCK) * scale.unsqueeze(1)).view(-1)[:size]

    def write(self, numbers: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> None:
        """Float32 numbers -> codes and scales, in place."""
        size = len(numbers)
        blocks = F.pad(numbers, (0, -size % _BLOCK)).view(-1, _BLOCK)
        scale.copy_(blocks.abs().amax(1))
        scaled = blocks / torch.where(scale > 0, scale, torch.ones_like(scale)).unsqueeze(1)
        found = torch.bucketize(scaled, self._borders, out_int32=True)
        if not self._is_signed:
            found = torch.where((found == 0) & (blocks > 0), 1, found)
        codes.copy_(found.view(-1)[:size])


class AdamW8bit(torch.optim.Optimizer):
    """See the module. The arguments are those of ``torch.optim.AdamW``."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._kinds: dict[tuple[torch.device, bool], Codes] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the base class, which makes everything float32; the codes are made bytes again."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for key in ("mean_codes", "root_codes"):
                if key in state:
                    state[key] = state[key].to(torch.uint8)

    def _start(self, parameter: torch.Tensor) -> dict[str, Any]:
        size, device = parameter.numel(), parameter.device
        if size < _SMALLEST:
            return {"step": 0, "mean": torch.zeros_like(parameter), "root": torch.zeros_like(parameter)}
        blocks = -(-size // _BLOCK)
        state: dict[str, Any] = {"step": 0}
        for key in ("mean", "root"):
            zero = ZERO_CODE[key == "mean"]
            state[f"{key}_codes"] = torch.full((size,), zero, dtype=torch.uint8, device=device)
            state[f"{key}_scale"] = torch.zeros(blocks, device=device)
        return state

    def _kind(self, device: torch.device, is_signed: bool) -> Codes:
        if (device, is_signed) not in self._kinds:
            self._kinds[device, is_signed] = Codes(is_signed=is_signed, device=device)
        return self._kinds[device, is_signed]

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(self._start(parameter))
        state["step"] += 1
        if "mean" in state:
            _adamw(parameter, parameter.grad, state["mean"], state["root"], state["step"], group)
            return
        flat, grads = parameter.view(-1), parameter.grad.reshape(-1)
        for begin in range(0, len(flat), _CHUNK):
            self._update_chunk(flat, grads, state, group, begin)

    def _update_chunk(
        self, flat: torch.Tensor, grads: torch.Tensor, state: dict[str, Any], group: dict[str, Any], begin: int
    ) -> None:
        part = slice(begin, min(begin + _CHUNK, len(flat)))
        blocks = slice(begin // _BLOCK, -(-part.stop // _BLOCK))
        averages = []
        for key in ("mean", "root"):
            kind = self._kind(flat.device, key == "mean")
            averages.append(kind.read(state[f"{key}_codes"][part], state[f"{key}_scale"][blocks], part.stop - begin))
        _adamw(flat[part], grads[part], *averages, state["step"], group)
        for key, numbers in zip(("mean", "root"), averages, strict=True):
            kind = self._kind(flat.device, key == "mean")
            kind.write(numbers, state[f"{key}_codes"][part], state[f"{key}_scale"][blocks])


def _adamw(
    parameter: torch.Tensor,
    grad: torch.Tensor,
    mean: torch.Tensor,
    root: torch.Tensor,
    step: int,
    group: dict[str, Any],
) -> None:
    """Update parameter, mean gradient and root of the mean square in place."""
    first, second = group["betas"]
    mean.lerp_(grad.float(), 1 - first)
    root.square_().mul_(second).addcmul_(grad, grad, value=1 - second).sqrt_()
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    denominator = root / (1 - second**step) ** 0.5 + group["eps"]
    parameter.addcdiv_(mean, denominator, value=-group["lr"] / (1 - first**step))
