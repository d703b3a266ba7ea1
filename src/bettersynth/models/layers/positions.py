"""Where a token is: rotary angles, 2-D tables, patch indexes.

Shape letters: L tokens, D width, K pairs of a head.
"""

from __future__ import annotations

import torch

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

_BASE = 10000.0


def rotary_angles(positions_L: torch.Tensor, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(L,) position ids -> cosine and sine (L, head_dim) as :func:`rotate` takes them, float32.

    Both halves of a cosine are the same; the first half of a sine has the other sign.
    Source: Su et al. 2021 (RoFormer), equation 34, in the half-split layout of LLaMA and Qwen2.
    """
    exponents_K = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_L.device) / head_dim
    angles_LK = positions_L.float()[:, None] * (1.0 / theta**exponents_K)
    cos_LK, sin_LK = angles_LK.cos(), angles_LK.sin()
    return torch.cat([cos_LK, cos_LK], dim=-1), torch.cat([-sin_LK, sin_LK], dim=-1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + half) of the last dimension by their angles; ``cos`` and ``sin`` broadcast to ``x``."""
    return torch.addcmul(x * cos.to(x.dtype), x.roll(x.shape[-1] // 2, -1), sin.to(x.dtype))


def sincos_table(side: int, dim: int) -> torch.Tensor:
    """(side * side, dim) frozen 2-D sine-cosine table, row ``row * side + col``, float32.

    The first half of a vector encodes the column, the second the row; each is [sin(p w_k), cos(p w_k)] with
    w_k = 10000^(-k / (dim / 4)). Computed in float64 and rounded once.
    """
    quarter = dim // 4
    frequencies = _BASE ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=-1)
    columns = line.repeat(side, 1)
    rows = line.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=-1).float()


def patch_ids(rows: int, cols: int, table_side: int, *, interpolate: bool = False) -> torch.Tensor:
    """(rows * cols,) row-major indexes into a table of ``table_side`` squared positions.

    Args:
        rows, cols: patches of the picture.
        table_side: side of the table.
        interpolate: stretch the picture over the table instead of counting from its corner.

    Raises:
        DataError: the picture has more patches on a side than the table (only without ``interpolate``).
    """
    if interpolate:
        # Coordinates and bounds in float32 as in training: the exact form floor(row * side / rows) is off by one
        # for a few sizes.
        bounds = torch.arange(1 / table_side, 1.0, 1 / table_side)
        row, col = (
            torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / count), bounds, right=True)[:count] for count in (rows, cols)
        )
    else:
        if max(rows, cols) > table_side:
            raise DataError(
                t("the picture has more patches on a side than the model has positions"),
                got=f"{rows} x {cols}",
                expected=t("at most {n}", n=table_side),
                hint=t("resize the picture, or use a model with a larger table"),
            )
        row, col = torch.arange(rows), torch.arange(cols)
    return (row[:, None] * table_side + col[None, :]).flatten()
