"""Attention over a packed sequence, by SDPA with one dense mask per sample or by flex attention with a block mask.

Shape letters: L tokens, H heads, K key-value heads, E head width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.models.layers.masks import Visibility

BACKENDS = ("sdpa", "flex")


def has_flex() -> bool:
    """Whether this torch brings flex attention."""
    try:
        import torch.nn.attention.flex_attention  # noqa: F401
    except ImportError:
        return False
    return True


def sdpa(q_LHE: torch.Tensor, k_LKE: torch.Tensor, v_LKE: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Softmax attention of one sequence: (L, H, E) queries over (M, K, E) keys -> (L, H, E)."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_LHE, k_LKE, v_LKE))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return mixed[0].transpose(0, 1)


class PackedAttention:
    """The ``attend`` of a training forward. Build one per batch, with the masks made once for all layers.

    Args:
        sees: who sees whom.
        backend: ``sdpa`` (each sample on its own, dense mask) or ``flex`` (one block mask). Flex attention has no
            backward pass on a CPU: there ``sdpa`` stands in for it whenever gradients are wanted.

    Raises:
        ConfigError: unknown backend, or this torch has no flex attention.
    """

    def __init__(self, sees: Visibility, backend: str = "sdpa") -> None:
        if backend not in BACKENDS or (backend == "flex" and not has_flex()):
            allowed = BACKENDS if has_flex() else BACKENDS[:1]
            raise ConfigError(
                t("unsupported value"),
                where="attention",
                got=backend,
                expected=t("one of: {names}", names=", ".join(allowed)),
            )
        self.lens: list[int] = list(sees.sample_lens)
        self.is_flex = backend == "flex" and (sees.sample.is_cuda or not torch.is_grad_enabled())
        self.block_mask = sees.block() if self.is_flex else None
        self.masks = [] if self.is_flex else sees.dense_per_sample()

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """(L, H, E), (L, K, E), (L, K, E) -> (L, H, E)."""
        if self.is_flex:
            return self._flex(q, k, v)
        return self._one_by_one(q, k, v)

    @torch.compiler.disable  # compiled, every batch with other lengths would be compiled anew
    def _one_by_one(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        pieces = zip(q.split(self.lens), k.split(self.lens), v.split(self.lens), self.masks, strict=True)
        mixed = [sdpa(*piece) for piece in pieces]
        return torch.cat(mixed) if len(mixed) > 1 else mixed[0]

    def _flex(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        heads = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
        mixed = _flex_kernel(q.is_cuda)(*heads, block_mask=self.block_mask, enable_gqa=q.shape[1] != k.shape[1])
        return mixed[0].transpose(0, 1)


@cache
def _flex_kernel(is_compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # Only a compiled kernel skips blocks; on a CPU the plain form is used, whose backward pass is defined.
    return torch.compile(flex_attention, dynamic=True) if is_compiled else flex_attention
