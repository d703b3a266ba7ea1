"""Attention for packed rows: every sequence of a row sees itself only, and no padding is computed anywhere.

Norms, projections and MLPs work on one long row of real tokens. Attention, the only place where tokens meet, is called
once per sequence on its slice of the row. That is the block-diagonal mask without the mask: no weight between sequences
is ever computed, so none can leak, the cost is that of the blocks, and the causal kernels stay in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "bettersynth_packed"
"""Attention of the transformers library that this module registers; without ``segment_lengths`` it is ``sdpa``."""


def attend(
    module: torch.nn.Module,
    query_BHLE: torch.Tensor,
    key_BHLE: torch.Tensor,
    value_BHLE: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segment_lengths: Sequence[int] | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """(B, L, H, E) causal attention inside each segment.

    Args:
        query_BHLE, key_BHLE, value_BHLE: B sequences, H heads, L positions, E width of a head.
        segment_lengths: lengths of the sequences in the row, in order; their sum is L and B is 1.
        settings: the library's own (dropout, scaling).
    """
    if segment_lengths is None:
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHLE, key_BHLE, value_BHLE, attention_mask, **settings
        )
        return whole
    parts = [part.split(list(segment_lengths), dim=2) for part in (query_BHLE, key_BHLE, value_BHLE)]
    outputs = [sdpa_attention_forward(module, q, k, v, None, **settings)[0] for q, k, v in zip(*parts, strict=True)]
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
