"""Which token sees which in a packed sequence, as a dense mask or as a block mask for flex attention.

Shape letters: L tokens of the pack, N tokens of one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

CAUSAL, FULL, NOISE = range(3)


@dataclass(frozen=True)
class Visibility:
    """Per token: its sample, its full or noise split, and whether that is a noise split.

    Attributes:
        sample_lens: tokens of each sample.
        sample: (L,) number of the token's sample.
        split: (L,) number of the token's split; causal tokens have -1 - position, which no other token has.
        is_noise: (L,) whether the token is in a noise split.
    """

    sample_lens: tuple[int, ...]
    sample: torch.Tensor
    split: torch.Tensor
    is_noise: torch.Tensor

    @classmethod
    def build(
        cls, sample_lens: Sequence[int], split_lens: Sequence[int], modes: Sequence[int], device: torch.device
    ) -> Visibility:
        """From the lengths of samples and splits and the splits' modes (0 causal, 1 full, 2 noise)."""
        lens, split_sizes = (torch.tensor(list(values), dtype=torch.int64) for values in (sample_lens, split_lens))
        total = sum(split_lens)
        kinds = torch.tensor(list(modes), dtype=torch.int64).repeat_interleave(split_sizes, output_size=total)
        splits = torch.arange(len(split_sizes)).repeat_interleave(split_sizes, output_size=total)
        own = -1 - torch.arange(len(splits))
        return cls(
            tuple(sample_lens),
            torch.arange(len(lens)).repeat_interleave(lens, output_size=total).to(device),
            torch.where(kinds == CAUSAL, own, splits).to(device),
            (kinds == NOISE).to(device),
        )

    def dense(self, begin: int = 0, end: int | None = None) -> torch.Tensor:
        """(N, N) bool, True where the row's token sees the column's, for tokens ``begin`` to ``end``."""
        sample, split, noise = (x[begin:end] for x in (self.sample, self.split, self.is_noise))
        place = torch.arange(len(sample), device=sample.device)
        same_split = split[:, None] == split[None, :]
        earlier = (place[None, :] <= place[:, None]) & ~noise[None, :]
        return (sample[:, None] == sample[None, :]) & (earlier | same_split)

    def dense_per_sample(self) -> list[torch.Tensor]:
        """One (N, N) mask per sample: what lies outside of them is never visible."""
        masks, begin = [], 0
        for length in self.sample_lens:
            masks.append(self.dense(begin, begin + length))
            begin += length
        return masks

    def block(self) -> Any:
        """The same as a block mask of flex attention."""
        from torch.nn.attention.flex_attention import create_block_mask

        sample, split, noise = self.sample, self.split, self.is_noise

        def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
            same_split = split[q] == split[k]
            return (sample[q] == sample[k]) & (same_split | ((k <= q) & ~noise[k]))

        length = len(sample)
        return create_block_mask(sees, None, None, length, length, device=str(sample.device))
